"""Whether a run's checkpoints, its log and its other files are of one run, and all there.

A checkpoint knows whose it is, where the run stood and every epoch's record until then; so a log that was lost or cut
is made whole from it, and a checkpoint of another run is no place to go on from.
"""

import contextlib
from collections.abc import Callable

from fastres.machine.console import say
from fastres.machine.errors import DataError, MachineError
from fastres.schedules.types import Schedule
from fastres.track.log import read_log
from fastres.track.run_config import differences
from fastres.track.run_dir import FollowedRunDir, RunDir
from fastres.train.checkpoint import Position

SHOWN = 3  # differences in a refusal
OLDER = {"schedule": "settings", "seed": "seed", "content_digest": "content_digest"}  # in config: in metadata
MAY_CHANGE = {"processes"}  # of a configuration, from one checkpoint to the next


class FirstSaved:
    """Notes a run's first checkpoint in its log, by the run's own `log`: they are lost where none stands beside it."""

    def __init__(self, log: Callable[..., dict]) -> None:
        self._log, self._noted = log, False

    def __call__(self, position: Position) -> None:
        """One is on the disk."""
        if not self._noted:
            with contextlib.suppress(MachineError):  # the disk is full: the checkpoint itself is there
                self._log("checkpoint", position)
                self._noted = True


def whereabouts(folder: RunDir | FollowedRunDir, position: Position, epochs: list[dict]) -> dict:
    """What a checkpoint says beside its tensors."""
    at = [position.stage, position.epoch, position.step]
    return {"config": folder.config, "at": at, "epochs": list(epochs)}


def check_own(folder: RunDir | FollowedRunDir, position: Position, state: dict) -> None:
    """DataError where the checkpoint is of another run, or under another one's name. Older ones say less."""
    at = Position(*state.get("at", (position.stage, position.epoch, position.step)))
    told = state.get("metadata", {})
    older = {name: told[key] for name, key in OLDER.items() if key in told}
    theirs = {key: value for key, value in state.get("config", older).items() if key not in MAY_CHANGE}
    different = differences(theirs, {key: folder.config[key] for key in theirs if key in folder.config})
    if at != position:
        different = [f"it was saved at {_place(at)}, and its name says {_place(position)}", *different]
    if different:
        raise DataError(
            f"{folder.checkpoints}: the newest checkpoint is not this run's ({'; '.join(different[:SHOWN])}); expected "
            "its own; move that file away, and the same command goes on from the newest of its own"
        )


def _place(at: Position) -> str:
    return f"stage {at.stage + 1} after {at.epoch} epochs and {at.step} steps"


def check_nothing_lost(folder: RunDir | FollowedRunDir) -> None:
    """For a run without any checkpoint. DataError where it had some: it is not trained anew without a word."""
    events = {record["event"] for record in read_log(folder.path / "log.jsonl")}
    ends = any(folder.path.glob("stages/*.safetensors"))
    if "checkpoint" in events or (ends and "epoch" not in events):
        raise DataError(
            f"{folder.checkpoints}: holds no checkpoint, though this run has saved some; restore them, or choose "
            "another --run-dir to train it anew"
        )


def epochs_until(position: Position, folder: RunDir | FollowedRunDir, state: dict, schedule: Schedule) -> list[dict]:
    """Every epoch's record until `position`, from the checkpoint; the log is made to have them, which is said.

    A checkpoint of an older version has none: DataError then where the log has lost some.
    """
    if "epochs" in state:
        keep_epochs(folder, state["epochs"])
        return state["epochs"]
    log = folder.path / "log.jsonl"
    found = [record for record in read_log(log) if record["event"] == "epoch" and Position(*record["at"]) <= position]
    expected = sum(row.epochs for row in schedule.stages[: position.stage]) + position.epoch
    if len(found) < expected:
        raise DataError(
            f"{log}: has {len(found)} of the {expected} epochs before the newest checkpoint; restore it, or choose "
            "another --run-dir to train the run anew"
        )
    return found


def keep_epochs(folder: RunDir | FollowedRunDir, epochs: list[dict]) -> None:
    """Put into the log what it has lost of these records, and say so."""
    lost = folder.log.restore(epochs)
    if lost:
        say(f"{folder.path / 'log.jsonl'}: had lost {lost} of {len(epochs)} epochs' records, which are restored")
