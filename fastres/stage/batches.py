"""Batches that are too small for BatchNorm, known before the first one trains.

A BatchNorm that uses the batch's statistics needs two values a channel. Where its map is 1x1, a batch of a single image
has one: torch refuses it, and with --sync-bn, where the variance is over all processes' images, it is 0 / 0.
"""

from collections.abc import Iterable

import torch

from fastres.data.slices import slice_of
from fastres.machine.errors import UsageError
from fastres.model.freeze import batch_norms, training_mode
from fastres.model.network import ResNet
from fastres.schedules.types import Schedule, Stage
from fastres.stage.operate import RECALIBRATION_VIEWS


def check_batches(
    network: ResNet, stage: Stage, schedule: Schedule, crop: int, images: int, processes: int, sync_bn: bool
) -> None:
    """UsageError with a batch size that works, where `stage` gives a BatchNorm of one value a channel to normalise.

    network  on the meta device, past the stage's surgery, with what learns in it marked
    images   of the training split; `processes` share every batch of them
    """
    cut = schedule.views.together
    if -(-schedule.batch_size // cut) < processes:
        pairs = " of whole pairs" if cut > 1 else ""
        raise UsageError(
            f"batch_size is {schedule.batch_size} on {processes} processes, expected a part{pairs} of each batch for "
            f"each of them; use --set batch_size={cut * processes} or more, or fewer processes"
        )
    training_mode(network, stage)
    learns = [norm for norm in batch_norms(network) if norm.training]
    recalibrated = batch_norms(network) if stage.bn == "recalibrated" and images else []
    smallest = _smallest_map(network, crop)
    together = 1 if sync_bn else processes  # that statistics are kept apart for

    def faults(batch_size: int) -> Iterable[str]:
        if any(smallest[norm] == 1 for norm in learns) and 1 in _shares(images, batch_size, together, cut):
            yield "a process's slice" if together > 1 else "a batch"
        if any(smallest[norm] == 1 for norm in recalibrated) and 1 in _shares(
            min(images, RECALIBRATION_VIEWS), batch_size, 1, 1
        ):
            yield "a batch of the views that re-estimate BatchNorm"

    found = next(iter(faults(schedule.batch_size)), None)
    if found is None:
        return
    sizes = sorted(range(1, images + 2), key=lambda size: (abs(size - schedule.batch_size), -size))
    sizes = [size for size in sizes if size % cut == 0 and size >= cut * processes]
    works = next((size for size in sizes if not any(True for _ in faults(size))), None)
    among = f" on {processes} processes" if processes > 1 else ""
    remedy = f"--set batch_size={works}" if works else f"a larger upscale of stage {stage.name}, or more images"
    if not works and processes > 1:
        remedy = f"fewer processes, --sync-bn, or {remedy}"
    raise UsageError(
        f"stage {stage.name}: {found} is a single image ({images} images in batches of {schedule.batch_size}{among}), "
        f"and its deepest maps are 1x1, where BatchNorm needs two; use {remedy}"
    )


def _shares(images: int, batch_size: int, processes: int, cut: int) -> set[int]:
    """Sizes of what one process gets of a whole batch and of the last one; an empty slice is no batch."""
    wholes = {min(batch_size, images), images % batch_size} - {0}
    bounds = [slice_of(whole, rank, processes, cut) for whole in wholes for rank in range(processes)]
    return {end - first for first, end in bounds} - {0}


@torch.no_grad()
def _smallest_map(network: ResNet, crop: int) -> dict[torch.nn.Module, int]:
    """Values a channel that each BatchNorm sees of one image."""
    sizes: dict[torch.nn.Module, int] = {}
    hooks = [
        norm.register_forward_hook(lambda norm, _, y: sizes.__setitem__(norm, y.shape[-1] * y.shape[-2]))
        for norm in batch_norms(network)
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    network(torch.zeros(1, 3, crop, crop, device=network.conv1.weight.device))
    for module, training in modes.items():
        module.training = training
    for hook in hooks:
        hook.remove()
    return sizes
