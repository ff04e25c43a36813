"""The experiments on the procedural small world: a counterpart of every schedule, the demo, and its pretraining.

Its images have 32 pixels and 20 classes (40 in the study), its crops 112 and then 28 pixels, its nets a quarter of the
width. It shows that the pipeline works and how fast; its errors say nothing about the paper's.
"""

import math
from dataclasses import replace

from fastres.machine.errors import UsageError
from fastres.schedules.paper import PAPER
from fastres.schedules.types import Schedule, Stage, WarmupCosine

WIDTH = 16
# Pretrained on the source world (SMALL_WORLD_PRETRAIN and _50 below), the two of 18 layers from two seeds.
NETS = {
    "resnet18": ("shipped:small_world_resnet18_w16", "shipped:small_world_resnet18_w16_s1"),
    "resnet50": ("shipped:small_world_resnet50_w16",),
}
EPOCHS = 0.6  # of the paper's: 5, 10, 4, 13 become 3, 6, 3, 8
BATCH = 8  # times smaller: 25 times fewer images would otherwise leave too few steps
RATE = 2.0  # times higher, found for the demo; a net from scratch keeps its own

# The paper's four stages on the small world.
DEMO = replace(
    PAPER,
    name="demo",
    width=WIDTH,
    weights=NETS["resnet18"][0],
    batch_size=32,
    optimizer=replace(PAPER.optimizer, lr=0.02),
    stages=(
        Stage(name="fc",     epochs=3, train=("fc.*",),    upscale=4, surgery=("fc",)),
        Stage(name="all",    epochs=6, train=("*",),       upscale=4),
        Stage(name="conv1",  epochs=3, train=("conv1.*",), upscale=1, surgery=("stem:torch7",), bn="recalibrated"),
        Stage(name="all-28", epochs=8, train=("*",),       upscale=1),
    ),
    expected={},
)  # fmt: skip

# How the pretrained nets were made, from nothing, on the small world's sharp source images (128 pixels, crop 112):
#   python preprocess/pack.py --small-world source --out packed-source
#   python -m fastres.train --schedule small-world-pretrain --data packed-source               # and --seed 1
#   python -m fastres.train --schedule small-world-pretrain-50 --data packed-source
SMALL_WORLD_PRETRAIN = replace(
    DEMO,
    name="small-world-pretrain",
    weights=None,
    batch_size=64,
    optimizer=replace(PAPER.optimizer, lr=0.1),
    lr_policy=WarmupCosine(warmup_epochs=1.0),
    stages=(Stage(name="scratch", epochs=15, train=("*",), upscale=1),),
)

# The same with 50 layers, for the counterpart of `feature-extractor-50`.
SMALL_WORLD_PRETRAIN_50 = replace(SMALL_WORLD_PRETRAIN, name="small-world-pretrain-50", arch="resnet50")


def small_world(schedule: Schedule, scale: float = 1.0) -> Schedule:
    """The small world's counterpart of a schedule, named NAME-small; the demo is that of `paper`.

    scale    epochs of every stage are multiplied by it too, and rounded up; at least 1 remains

    UsageError where a pretrained schedule's architecture has no small weights, or where it keeps its net's head.
    """
    if schedule.knows_classes:
        raise UsageError(f"schedule {schedule.name}: the small world's nets have no head for its classes; leave it out")
    if schedule.weights is not None and schedule.arch not in NETS:
        raise UsageError(
            f"schedule {schedule.name}: the small world has no pretrained {schedule.arch}, expected one of "
            f"{', '.join(NETS)}"
        )
    rate = RATE if schedule.weights is not None else 1.0
    return replace(
        schedule,
        name=f"{schedule.name}-small",
        width=WIDTH,
        weights=None if schedule.weights is None else NETS[schedule.arch][0],
        batch_size=max(1, schedule.batch_size // BATCH),
        optimizer=replace(schedule.optimizer, lr=schedule.optimizer.lr * rate),
        stages=tuple(_small_stage(stage, scale, rate) for stage in schedule.stages),
        expected={},
    )


def times(epochs: int, scale: float) -> int:
    """Epochs at a scale, rounded up; at least 1 remains."""
    return max(1, math.ceil(epochs * scale - 1e-9))  # 5 * 0.6 is to be 3, whatever its last bit


def _small_stage(stage: Stage, scale: float, rate: float) -> Stage:
    return replace(
        stage,
        name=stage.name.replace("-56", "-28"),
        epochs=times(stage.epochs, EPOCHS * scale),
        lr=None if stage.lr is None else stage.lr * rate,
    )
