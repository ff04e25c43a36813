"""What an epoch costs in arithmetic: equal epochs are not equal compute.

Counted by torch's own FlopCounterMode on the meta device, forward and the part of backward that a stage needs: a
frozen prefix has no backward, a frozen layer behind one that learns has no weight gradient. Convolutions and the head
count, two operations a multiply-add; what a stage spends on views, BatchNorm and validation does not.
"""

import math
from functools import cache

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fastres.model.freeze import set_trainable
from fastres.model.network import Architecture, build
from fastres.views.geometry import Geometry

UNITS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


@cache
def training_flop(architecture: Architecture, train: tuple[str, ...], crop: int) -> int:
    """Floating-point operations to train on one image of `crop` pixels when `train` (patterns) learns."""
    with torch.device("meta"):
        network = build(architecture).eval()
        x, label = torch.empty(1, 3, crop, crop), torch.empty(1, dtype=torch.long)
    set_trainable(network, train)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(network(x), label).backward()
    return counter.get_total_flops()


def stage_flop(schedule: dict, classes: int, side: int) -> list[int]:
    """Operations per image and epoch of every stage of a schedule (as to_dict makes it)."""
    stem, found = "7x7", []
    for stage in schedule["stages"]:
        if any(operation.startswith("stem:") for operation in stage["surgery"]):
            stem = "3x3"
        architecture = Architecture(schedule["arch"], schedule["width"], classes, stem)
        crop = Geometry(side, stage["upscale"], stage.get("whole", False)).crop
        found.append(training_flop(architecture, tuple(stage["train"]), crop))
    return found


def unit_for(operations: float) -> tuple[float, str]:
    """The largest unit in which `operations` is at least 1, and its name."""
    if not math.isfinite(operations):
        return UNITS[0]
    return next((unit for unit in UNITS if operations >= unit[0]), UNITS[-1])
