"""Where a run begins: its newest checkpoint, another run's shared stages, or pretrained weights."""

from typing import TYPE_CHECKING

import torch
from torchvision.models.resnet import ResNet

from fastres.engine.checkpoint import Position, load_checkpoint, set_aside_after
from fastres.engine.stage_ends import Start
from fastres.model.weights import initial_network, network_from
from fastres.track.console import say

if TYPE_CHECKING:
    from fastres.run import Run


def take_up(run: "Run", start: Start | None) -> tuple[ResNet, dict | None]:
    """Set the run's position and cut its log back to it; the network there, and the state inside its stage.

    `start`: another run whose first stages are taken over, if this one has no checkpoint of its own. The state is None
    at the border of a stage.
    """
    found, resumed = load_checkpoint(run.folder.checkpoints), None
    if found is None and start is not None:
        network = _take_over(run, start)
    elif found is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            network = initial_network(run.schedule, run.manifest.num_classes)
        run.folder.log.rewind_to(lambda _: False)
    else:
        run.position, state = found
        network = network_from(state["network"], run.folder.checkpoints)
        run.images_seen, resumed = state["images_seen"], state.get("stage")
        run.folder.log.rewind_to(lambda record: _is_before(record, run.position))
        say(f"resuming in stage {run.position.stage + 1} after {run.position.epoch} of its epochs"
            f" and {run.position.step} steps")  # fmt: skip
    run.world.agree("a checkpoint at", str(run.position))
    if found is not None:
        run.world.from_first(lambda: set_aside_after(run.folder.checkpoints, run.position))
    return network, resumed


def _take_over(run: "Run", start: Start) -> ResNet:
    """Begin where another run's last shared stage ended, with what it logged until there."""
    state, run.images_seen = start.load()
    run.position = Position(start.stages)
    run.world.from_first(lambda: start.share_files(run.folder.path))
    run.folder.log.rewind_to(lambda _: False)
    for record in start.records():
        run.folder.log.write(**record)
    say(f"{start.stages} of {len(run.schedule.stages)} stages taken over from {start.run}")
    return network_from(state, start.run)


def _is_before(record: dict, position: Position) -> bool:
    """Whether a log record belongs to what the checkpoint holds; borders of stages and the end are said anew."""
    at = Position(*record.get("at", (0, 0, 0)))
    return at < position or (at == position and record["event"] not in ("stage", "start", "final"))
