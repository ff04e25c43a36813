"""The learning rate of one stage, as an object the loop asks before every step and tells after every epoch."""

import math
from typing import Protocol

from fastres.schedule_types import Plateau, WarmupCosine


class LearningRate(Protocol):
    """What the loop needs of a rate."""

    def at(self, step: int) -> float:
        """The rate of the stage's step number `step`, from 0."""

    def after_epoch(self, error: float) -> None:
        """Take note of an epoch's validation top-1 error in %."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


def learning_rate(policy: Plateau | WarmupCosine, start: float, steps_per_epoch: int, epochs: int) -> LearningRate:
    """The stage's rate; every stage starts anew."""
    if isinstance(policy, Plateau):
        return PlateauRate(policy, start)
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
