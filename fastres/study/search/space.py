"""What is searched, and over which ranges: learning rate, momentum, weight decay, batch size, jitter strength.

The paper names the method (section 5.4: randomized search, validated over three epochs) but neither parameters nor
ranges. These ranges are ours: around what the schedule says, wide enough to reach what does not work. It adds that the
hyperparameters of fb.resnet.torch, which are the schedule's, were near the best.
"""

from dataclasses import dataclass, replace

from fastres.machine.errors import UsageError
from fastres.schedules.loading import override
from fastres.schedules.types import Schedule


@dataclass(frozen=True)
class Range:
    """Uniform between two numbers, on a logarithmic scale where `log`."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial, name: str) -> float:
        """Ask an Optuna trial for a value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Choice:
    """One of a few values, each as likely."""

    values: tuple

    def suggest(self, trial, name: str):
        """Ask an Optuna trial for a value."""
        return trial.suggest_categorical(name, list(self.values))


FACTORS = (0.125, 0.25, 0.5, 1, 2)  # of the schedule's batch: down to the 32 that Torch7's tools begin with
Space = dict[str, Range | Choice]  # by the name that `train --set` knows


def paper_space(schedule: Schedule) -> Space:
    """The five parameters of the search, by the names of `--set`. For `paper`: lr 0.001 to 0.1, batch 32 to 512.

    `schedule`: what a trial trains. UsageError where every stage has its own rate: this one would do nothing.
    """
    if all(stage.lr is not None for stage in schedule.stages):
        raise UsageError(
            f"schedule {schedule.name}: every stage has a rate of its own, so there is no optimizer.lr to search; "
            "take lr out of the stages that are to have the searched one"
        )
    lr, batch_size = schedule.optimizer.lr, schedule.batch_size
    return {
        "optimizer.lr": Range(lr / 10, lr * 10, log=True),
        "optimizer.momentum": Range(0.8, 0.97),
        "optimizer.weight_decay": Range(1e-5, 1e-3, log=True),
        "batch_size": Choice(tuple(sorted({_whole(schedule, batch_size * factor) for factor in FACTORS}))),
        "views.jitter": Range(0.0, 0.8),  # brightness, contrast and saturation alike; the paper's is 0.4
    }


def _whole(schedule: Schedule, size: float) -> int:
    """A batch size near it that parts no pair of mixed views."""
    cut = schedule.views.together
    return max(cut, int(size) // cut * cut)


def apply(schedule: Schedule, settings: dict) -> Schedule:
    """`schedule` with a trial's settings, as `train --set` would make it."""
    return override(schedule, [f"{name}={value!r}" for name, value in settings.items()])


def first_epochs(schedule: Schedule, epochs: int) -> Schedule:
    """The first `epochs` epochs of a schedule: whole stages, then a part of one, then nothing.

    UsageError where it has fewer.
    """
    if epochs < 1 or epochs > schedule.epochs:
        raise UsageError(f"--epochs {epochs}: expected 1 to the {schedule.epochs} epochs of {schedule.name}")
    stages, left = [], epochs
    for stage in schedule.stages:
        if left:
            stages.append(replace(stage, epochs=min(left, stage.epochs)))
            left -= stages[-1].epochs
    return replace(schedule, stages=tuple(stages))
