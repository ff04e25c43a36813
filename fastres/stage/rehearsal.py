"""A schedule walked through once without data or arithmetic, so that its faults are known before the first epoch.

Runs on torch's meta device: shapes only, milliseconds, no memory.
"""

from collections.abc import Sequence

import torch

from fastres.machine.errors import UsageError
from fastres.model.freeze import set_trainable
from fastres.model.metadata import LARGEST, makes_a_side
from fastres.model.named import is_name, named_architecture
from fastres.model.network import Architecture, build, describe, replace_stem
from fastres.model.pullback import check_upscales
from fastres.model.reading import read_weights
from fastres.model.surgery import check_imagenet_head, feature_sides, imagenet_rows
from fastres.model.weights import check_architecture, weights_file
from fastres.schedules.types import KNOWN_HEAD, Schedule
from fastres.stage.batches import check_batches
from fastres.stage.optimizer import groups_of
from fastres.views.geometry import Geometry


def rehearse(
    schedule: Schedule,
    classes: int,
    side: int,
    wnids: Sequence[str] | None = None,
    *,
    images: int | None = None,
    processes: int = 1,
    sync_bn: bool = False,
) -> list[Architecture]:
    """The network of every stage, for data of `classes` classes (ids `wnids`, where known) and `side` pixels.

    images     of the training split, where they are known: then batches that are too small are found as well
    processes  share every batch; `sync_bn`: with BatchNorm over all of them

    UsageError for a pattern (of what learns, of its rates) that matches nothing, a stem replaced twice, a head that
    does not fit the data, a layer whose output changes its side, or a batch of one image where BatchNorm needs two;
    DataError for a weights file that is missing, damaged or of another network.
    """
    with torch.device("meta"):
        network = build(starting_point(schedule, classes))
    found, upscale = [], None
    for stage in schedule.stages:
        if not makes_a_side(side, stage.upscale):
            raise UsageError(
                f"stage {stage.name}: {side} pixels enlarged {stage.upscale} times, expected a multiple of 8 up to "
                f"{LARGEST} pixels"
            )
        for operation in stage.surgery:
            if operation == KNOWN_HEAD:
                check_imagenet_head(network.fc.out_features)
                imagenet_rows(wnids or ())
            if operation in ("fc", KNOWN_HEAD):
                network.fc = torch.nn.Linear(network.fc.in_features, classes, device="meta")
            else:
                before = Geometry(side, upscale or 4 * stage.upscale)
                _replace_stem(network, operation, stage.name, before, Geometry(side, stage.upscale))
                if operation == "stem:pullback":
                    check_upscales(before.upscale, stage.upscale)
        upscale = stage.upscale
        if network.fc.out_features != classes:
            raise UsageError(
                f"stage {stage.name}: the network has {network.fc.out_features} outputs, expected the data's {classes} "
                "classes; add surgery 'fc' to it or to a stage before it"
            )
        set_trainable(network, stage.train)
        groups_of(network, stage)
        if images is not None:
            crop = Geometry(side, stage.upscale, stage.whole).crop
            check_batches(network, stage, schedule, crop, images, processes, sync_bn)
        found.append(describe(network.state_dict()))
    return found


def starting_point(schedule: Schedule, classes: int) -> Architecture:
    """What the schedule's weights are, without fetching any; a file is read and checked."""
    wanted = schedule.weights
    if wanted is None:
        return Architecture(schedule.arch, schedule.width, classes)
    if is_name(wanted):
        return named_architecture(schedule.arch, wanted)
    return check_architecture(read_weights(weights_file(wanted)), schedule)


def _replace_stem(network, operation: str, name: str, before: Geometry, after: Geometry) -> None:
    if network.conv1.kernel_size != (7, 7):
        raise UsageError(f"stage {name}: surgery {operation} finds a {network.conv1.kernel_size} stem, expected 7x7")
    sides = feature_sides(network, before.crop)
    replace_stem(network)
    new_sides = feature_sides(network, after.crop)
    if new_sides != sides:
        raise UsageError(
            f"stage {name}: after surgery {operation} layers have sides {new_sides}, expected {sides} as before; the "
            f"stage's upscale must be a quarter of {before.upscale}"
        )
