"""Checkpoints: atomic, carrying their own digest; the last two are kept, and the best. Loading runs no pickled code.

The file name says where the run stood, the validation top-1 error in % where an epoch ended there, and the first 16 hex
digits of the content's sha256, so a bit-flipped file (which torch.load would accept) is known before it is opened:

    stage2-epoch004-step000123-9f86d081884c7d65.pt      stage2-epoch005-step000000-err24.990-60303ae22b998861.pt
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from fastres.machine.console import say
from fastres.machine.errors import DataError, MachineError
from fastres.machine.files import read_regular, write_atomic
from fastres.model.reading import check_values

KEEP = 2
_NAME = re.compile(r"stage(\d+)-epoch(\d+)-step(\d+)(?:-err(\d+\.\d+))?-([0-9a-f]{16})\.pt")


@dataclass(frozen=True, order=True)
class Position:
    """How far a run is: stage index, whole epochs done in it, steps done in the epoch after those."""

    stage: int = 0
    epoch: int = 0
    step: int = 0


class Saved(NamedTuple):
    """A checkpoint file by its name. error: validation top-1 error in %, None inside an epoch."""

    position: Position
    path: Path
    error: float | None
    digest: str


def save_checkpoint(folder: Path, position: Position, state: dict, error: float | None = None) -> Path:
    """Write `state` (dicts, lists, numbers, tensors) for `position`; of the older files the last and the best stay.

    `error`: validation top-1 error in % at an epoch's end. MachineError where the disk is full; then all older files
    stay.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()[:16]
    reached = "" if error is None else f"-err{error:.3f}"
    path = folder / f"stage{position.stage}-epoch{position.epoch:03d}-step{position.step:06d}{reached}-{digest}.pt"
    write_atomic(path, content)
    _prune(checkpoints_in(folder))
    return path


def _prune(found: list[Saved]) -> None:
    scored = [saved for saved in found if saved.error is not None]
    best = min(scored, key=lambda saved: (saved.error, saved.position), default=None)
    for saved in found[:-KEEP]:
        if saved is not best:
            try:
                saved.path.unlink(missing_ok=True)
            except OSError as error:  # one too many costs room, and nothing else
                say(f"checkpoint {saved.path}: could not be removed ({error.strerror}); it stays beside the newer ones")


def load_checkpoint(folder: Path) -> tuple[Position, dict] | None:
    """The newest whole checkpoint, tensors on the CPU; None where there is none at all.

    A damaged one is named and the one before it used. DataError if all are damaged: never a silent start from zero.
    """
    found = checkpoints_in(folder)
    for saved in reversed(found):
        try:
            content = read_regular(saved.path)
        except OSError as error:
            say(f"checkpoint {saved.path}: cannot be read ({error.strerror}); trying the one before it")
            continue
        if hashlib.sha256(content).hexdigest()[:16] == saved.digest:
            return saved.position, _unpack(content, saved.path)
        say(f"checkpoint {saved.path}: its content does not match the digest in its name; trying the one before it")
    if found:
        raise DataError(
            f"{folder}: all {len(found)} checkpoints are damaged, expected at least one whole; restore one, or remove "
            "the run folder to start over"
        )
    return None


def set_aside_after(folder: Path, position: Position) -> None:
    """Rename the checkpoints beyond `position`, where a run goes on because they are damaged, to NAME.pt.damaged.

    Under their own names they would stay the newest two, or the best, and what the run saves next would be pruned
    instead of them. MachineError where one cannot be renamed.
    """
    for saved in checkpoints_in(folder):
        if saved.position > position:
            try:
                saved.path.rename(saved.path.with_name(saved.path.name + ".damaged"))
            except OSError as error:
                raise MachineError(
                    f"{saved.path}: damaged, and could not be renamed ({error.strerror}); remove it, "
                    "and the same command resumes from the one before it"
                ) from error


def _unpack(content: bytes, path: Path) -> dict:
    """The state dict in a checkpoint; DataError if it holds anything that would have to be executed."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle.UnpicklingError for code, several kinds for what is no torch file
        raise DataError(
            f"{path}: holds more than tensors and plain values, so it was not loaded ({type(error).__name__}); remove "
            "it, and the one before it is used"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("network"), dict):
        raise DataError(f"{path}: is no checkpoint of a run; remove it, and the one before it is used")
    check_values(state["network"], path)
    return state


def checkpoints_in(folder: Path) -> list[Saved]:
    """Oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(
        Saved(Position(int(m[1]), int(m[2]), int(m[3])), path, float(m[4]) if m[4] else None, m[5])
        for m, path in matches
        if m
    )
