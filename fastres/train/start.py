"""Where a run begins: in its folder with its newest checkpoint, another run's shared stages or pretrained weights."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from fastres.machine.console import say
from fastres.machine.processes.world import World
from fastres.model.metadata import digest_of
from fastres.model.network import ResNet
from fastres.model.weights import initial_network, network_from
from fastres.stage.setting import Setting
from fastres.track.run_dir import FollowedRunDir, RunDir
from fastres.train.belongings import check_nothing_lost, check_own, epochs_until
from fastres.train.checkpoint import Position, checkpoints_in, load_checkpoint, set_aside_after
from fastres.train.options import Options
from fastres.train.stage_ends import Start


class TakenUp(NamedTuple):
    """Where a run goes on.

    network      on the CPU
    images_seen  training images so far
    stage        the state inside the position's stage; None at the border of a stage
    epochs       the log's records of the epochs so far
    """

    position: Position
    network: ResNet
    images_seen: int = 0
    stage: dict | None = None
    epochs: Sequence[dict] = ()


def begun(options: Options) -> bool:
    """Whether the run has a checkpoint of its own, so that what it started from is needed no more."""
    folder = options.folder / "checkpoints"
    return folder.is_dir() and bool(checkpoints_in(folder))


def open_folder(options: Options, config: dict, world: World) -> RunDir | FollowedRunDir:
    """Open or create the run's folder; the first process locks it, the others read."""
    path = options.folder
    opened: list[RunDir] = []
    may_change = ["processes"] if options.allow_process_change else []
    world.from_first(lambda: opened.append(RunDir.open(path, config, may_change)))
    for folder in opened:
        if folder.before and not folder.finished:
            say(
                f"{path}: begun on {folder.before['processes']} processes, going on with {world.size}: the rest is not "
                "bit-exact"
            )
    return opened[0] if opened else FollowedRunDir(path, config)


def take_up(setting: Setting, folder: RunDir | FollowedRunDir, start: Start | None = None) -> TakenUp:
    """Where the run in `folder` goes on; its log is cut back to there, and has every epoch until there.

    DataError where its checkpoints are another run's, or lost.
    `start`: another run whose first stages are taken over, if this one has no checkpoint of its own.
    """
    found, world = load_checkpoint(folder.checkpoints), setting.world
    if found is None:
        world.from_first(lambda: check_nothing_lost(folder))
    if found is not None:
        position, state = found
        check_own(folder, position, state)
        network = network_from(state["network"], folder.checkpoints)
        folder.log.rewind_to(lambda record: _is_before(record, position))
        epochs = world.from_first(lambda: epochs_until(position, folder, state, setting.schedule))
        taken = TakenUp(position, network, state["images_seen"], state.get("stage"), epochs)
        say(f"resuming in stage {position.stage + 1} after {position.epoch} of its epochs and {position.step} steps")
    elif start is not None:
        taken = _take_over(setting, folder, start)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            taken = TakenUp(Position(), initial_network(setting.schedule, setting.manifest.num_classes))
        folder.log.rewind_to(lambda _: False)
    # a network that was drawn may differ in its last bits between processors; it is the first process's in all
    read = found is not None or start is not None or setting.schedule.weights is not None
    world.agree(
        lambda: {
            "checkpoint": str(taken.position),
            "weights": digest_of(taken.network.state_dict()) if read else None,
        }
    )
    if found is not None:
        world.from_first(lambda: set_aside_after(folder.checkpoints, taken.position))
    return taken


def _take_over(setting: Setting, folder: RunDir | FollowedRunDir, start: Start) -> TakenUp:
    """Begin where another run's last shared stage ended, with what it logged until there."""
    (state, images_seen), records = start.load(), start.records()
    folder.log.rewind_to(lambda _: False)
    for record in records:
        folder.log.write(**record)
    setting.world.from_first(lambda: start.share_files(folder.path))  # last: ends without a log have lost theirs
    say(f"{start.stages} of {len(setting.schedule.stages)} stages taken over from {start.run}")
    epochs = [record for record in records if record["event"] == "epoch"]
    return TakenUp(Position(start.stages), network_from(state, start.run), images_seen, None, epochs)


def _is_before(record: dict, position: Position) -> bool:
    """Whether a log record belongs to what the checkpoint holds; borders of stages and the end are said anew."""
    at = Position(*record.get("at", (0, 0, 0)))
    return at < position or (at == position and record["event"] not in ("stage", "start", "final"))
