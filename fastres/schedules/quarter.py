"""The paper at a quarter of its size, on real photos: a counterpart of every schedule, and its pretraining.

Tiny ImageNet's classes are halved: a net of half the width learns one half at 64 pixels (crop 56), as ImageNet's nets
learned at 256 (crop 224); the task is the other half at 16 pixels, enlarged to 64 (crop 56) and after size adaptation
at its own size (crop 14). No class and no image of the task was seen in pretraining, which the paper cannot say. The
task has the paper's 500 training images a class in 100 classes, so that half the batch keeps its number of steps.
"""

from dataclasses import replace

from fastres.machine.errors import UsageError
from fastres.schedules.paper import PAPER
from fastres.schedules.small import times
from fastres.schedules.types import Schedule, Stage, WarmupCosine

WIDTH = 32
SOURCE, TASK = "0::2", "1::2"  # slices of the sorted classes
TASK_SIDE = 16  # pixels: a quarter; the source keeps its 64
BATCH = 2  # times smaller than the paper's

# The pretrained net: from nothing, on the source, one stage.
PRETRAIN = replace(
    PAPER,
    name="quarter-pretrain",
    width=WIDTH,
    weights=None,
    batch_size=PAPER.batch_size // BATCH,
    optimizer=replace(PAPER.optimizer, lr=0.1),
    lr_policy=WarmupCosine(warmup_epochs=1.0),
    stages=(Stage(name="scratch", epochs=20, train=("*",), upscale=1),),
    expected={},
)

# The same with 50 layers, for the counterpart of `feature-extractor-50`.
PRETRAIN_50 = replace(PRETRAIN, name="quarter-pretrain-50", arch="resnet50")
# And without shortcuts, for the plain counterparts.
PRETRAIN_PLAIN = replace(PRETRAIN, name="quarter-pretrain-plain", arch="plain18")
PRETRAINING = {schedule.arch: schedule for schedule in (PRETRAIN, PRETRAIN_50, PRETRAIN_PLAIN)}


def pretraining(arch: str, scale: float = 1.0) -> Schedule:
    """What makes the pretrained net of `arch`; its epochs times `scale`, rounded up, at most half of them warming up.

    KeyError where none does.
    """
    schedule = PRETRAINING[arch]
    stages = tuple(replace(stage, epochs=times(stage.epochs, scale)) for stage in schedule.stages)
    warmup = min(schedule.lr_policy.warmup_epochs, stages[0].epochs / 2)
    return replace(schedule, stages=stages, lr_policy=replace(schedule.lr_policy, warmup_epochs=warmup))


def quarter(schedule: Schedule, nets: dict[str, str], scale: float = 1.0) -> Schedule:
    """The counterpart of a schedule, named NAME-quarter: its own epochs and rates, half its batch and width.

    nets   a pretrained net's file by architecture
    scale  epochs of every stage are multiplied by it, and rounded up; at least 1 remains

    UsageError where the schedule keeps its net's head, or where no net of its architecture is pretrained.
    """
    if schedule.weights is not None and schedule.arch not in PRETRAINING:
        raise UsageError(
            f"schedule {schedule.name}: the quarter size pretrains no {schedule.arch}, expected one of "
            f"{', '.join(PRETRAINING)}"
        )
    if schedule.knows_classes:
        raise UsageError(f"schedule {schedule.name}: the quarter size's nets know other classes; leave it out")
    return replace(
        schedule,
        name=f"{schedule.name}-quarter",
        width=WIDTH,
        weights=None if schedule.weights is None else nets[schedule.arch],
        batch_size=max(1, schedule.batch_size // BATCH),
        stages=tuple(
            replace(stage, name=stage.name.replace("-56", "-14"), epochs=times(stage.epochs, scale))
            for stage in schedule.stages
        ),
        expected={},
    )
