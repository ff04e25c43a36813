"""The learning rate of one stage, as an object the loop asks before every step and tells after every epoch."""

import math
from typing import Protocol

from fastres.schedules.types import OneCycle, Plateau, WarmupCosine


class LearningRate(Protocol):
    """What the loop needs of a rate."""

    def at(self, step: int) -> float:
        """The rate of the stage's step number `step`, from 0."""

    def after_epoch(self, error: float) -> None:
        """Take note of an epoch's validation top-1 error in %."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


def learning_rate(
    policy: Plateau | WarmupCosine | OneCycle, start: float, steps_per_epoch: int, epochs: int
) -> LearningRate:
    """The stage's rate; every stage starts anew. `start`: the first rate of Plateau, the highest of the others."""
    if isinstance(policy, Plateau):
        return PlateauRate(policy, start)
    if isinstance(policy, OneCycle):
        return OneCycleRate(policy, start, steps_per_epoch * epochs)
    return CosineRate(policy, start, steps_per_epoch, epochs)


class PlateauRate:
    """Section 5.4: lowered when the running average of the error did not improve notably over `patience` epochs."""

    def __init__(self, policy: Plateau, start: float) -> None:
        self.policy = policy
        self.rate = start
        self.errors: list[float] = []  # of the running average's window
        self.best = math.inf  # lowest running average so far
        self.waited = 0  # epochs since it improved by `least`

    def at(self, step: int) -> float:
        return self.rate

    def after_epoch(self, error: float) -> None:
        self.errors = [*self.errors, error][-self.policy.window :]
        average = sum(self.errors) / len(self.errors)
        if average <= self.best - self.policy.least:
            self.best, self.waited = average, 0
            return
        self.waited += 1
        if self.waited >= self.policy.patience:
            self.rate *= self.policy.factor
            self.waited = 0

    def state_dict(self) -> dict:
        return {"rate": self.rate, "errors": list(self.errors), "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict) -> None:
        self.rate, self.best, self.waited = state["rate"], state["best"], state["waited"]
        self.errors = list(state["errors"])


class CosineRate:
    """Linear warm-up to the start rate, then half a cosine; zero would come one step after the last. Stateless."""

    def __init__(self, policy: WarmupCosine, start: float, steps_per_epoch: int, epochs: int) -> None:
        self.start = start
        self.total = steps_per_epoch * epochs
        self.warmup = min(round(policy.warmup_epochs * steps_per_epoch), self.total - 1)

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.start * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / (self.total - self.warmup)
        return self.start * 0.5 * (1.0 + math.cos(math.pi * done))

    def after_epoch(self, error: float) -> None: ...

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None: ...


class OneCycleRate:
    """Half a cosine up to the highest rate, half a cosine down, over all of the stage's steps. Stateless.

    As torch's OneCycleLR counts: the peak is at step warmup * steps - 1, the lowest rate at the very last step.
    """

    def __init__(self, policy: OneCycle, highest: float, steps: int) -> None:
        self.policy, self.highest = policy, highest
        self.last = steps - 1
        self.peak = max(policy.warmup * steps - 1, 0.0)

    def at(self, step: int) -> float:
        if step <= self.peak and self.peak > 0:
            return self.highest * _half_cosine(self.policy.start, 1.0, step / self.peak)
        done = (step - self.peak) / (self.last - self.peak) if self.last > self.peak else 0.0
        return self.highest * _half_cosine(1.0, self.policy.end, done)

    def after_epoch(self, error: float) -> None: ...

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None: ...


def _half_cosine(a: float, b: float, done: float) -> float:
    """From a at done = 0 to b at done = 1."""
    return b + (a - b) * 0.5 * (1.0 + math.cos(math.pi * done))
