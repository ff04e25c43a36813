"""`step=auto`: the machine decides how a stage's steps are run, by trying them."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fastres import views
from fastres.data.batch import Batch
from fastres.data.resident import Resident
from fastres.machine.errors import MachineError, UsageError
from fastres.model.network import ResNet
from fastres.schedules.types import Stage
from fastres.stage.choosing import remembered
from fastres.stage.choosing.decide import decide, in_words, worth_trying
from fastres.stage.choosing.trial import try_out, views_seconds
from fastres.stage.setting import Setting
from fastres.stage.stage_step import check_step, stage_step, step_kind
from fastres.views import triton_blocks

CANDIDATES = ("captured", "fused", "captured-fused", "compiled")  # beside eager; the dearest to find out last
PADDED = {"eager": "padded", **{kind: f"{kind}-padded" for kind in CANDIDATES[:3]}}  # each with padded images


class Choice(NamedTuple):
    """`kind`, a name of STEPS, and how it was found in words: None where nothing was tried."""

    kind: str
    words: str | None = None


def choose(setting: Setting, network: ResNet, stage: Stage, plan: views.TrainPlan, steps: int) -> Choice:
    """The kind that trains `steps` steps of `stage`, whose surgery `network` is past, in the least time.

    What the schedule names, where it names one. `auto` tries them out on a GPU, where one process trains and the same
    bits are not asked for; elsewhere it is eager. On a CPU eager was measured to be the fastest (`bench steps`).
    """
    wanted, device = setting.schedule.step, setting.precision.device
    alone = setting.world.size == 1 and not torch.are_deterministic_algorithms_enabled()
    if wanted != "auto" or device.type != "cuda" or not alone:
        return Choice("eager" if wanted == "auto" else wanted)
    return tried(setting, network, stage, plan, steps, legal(setting, views.chosen(plan, setting.precision.device)))


def tried(
    setting: Setting, network: ResNet, stage: Stage, plan: views.TrainPlan, steps: int, kinds: list[str]
) -> Choice:
    """The choice between eager and `kinds`, by the trials kept beside the data and those that are worth making now."""
    file = setting.packed / remembered.PLACE
    batch = First(setting)
    ready_views(setting, batch, plan, "eager")
    name = remembered.key(network, stage, setting.schedule, plan.geometry, setting.precision)
    known = remembered.recall(file, name)
    padded = [PADDED[kind] for kind in ("eager", *kinds) if kind in PADDED]
    trials = {kind: trial for kind, trial in known.items() if kind in ("eager", *kinds, *padded)}
    before = len(trials)
    started = time.perf_counter()

    def make(kind: str):
        return stage_step(network, stage, setting.schedule, setting.precision, step_kind(kind))

    if "eager" not in trials:
        trials["eager"] = try_out(network, "eager", make, batch(), plan)

    def attempt(kind: str):
        if worth_trying(kind, trials["eager"].step_s, steps, trials):
            if kind in PADDED.values():
                ready_views(setting, batch, plan, kind)
            trials[kind] = try_out(network, kind, make, batch(), plan)

    for kind in kinds:
        attempt(kind)
    if (fastest := decide(trials, steps)) in PADDED:
        attempt(PADDED[fastest])
    measured = len(trials) > before
    if measured:
        remembered.keep(file, name, known | trials)
    kind = decide(trials, steps)
    return Choice(kind, in_words(kind, trials, time.perf_counter() - started if measured else None))


def legal(setting: Setting, impl: str) -> list[str]:
    """The kinds beside eager that the run's settings allow; `impl` makes the views."""
    engine = "resident" if isinstance(setting.train, Resident) else "streaming"
    asked = setting.schedule.optimizer.impl, setting.precision, engine, impl
    return [kind for kind in CANDIDATES if _passes(partial(check_step, step_kind(kind), *asked))]


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except (MachineError, UsageError):
        return False
    return True


def taken_up(setting: Setting, plan: views.TrainPlan, kind: str) -> Choice:
    """The kind that a resumed stage began as, its views as ready as they were then."""
    if setting.schedule.step == "auto" and setting.precision.device.type == "cuda" and setting.world.size == 1:
        ready_views(setting, First(setting), plan, kind)
    return Choice(kind)


def ready_views(setting: Setting, batch: Callable[[], Batch], plan: views.TrainPlan, kind: str) -> None:
    """Triton's views in their fastest blocks, in the number of channels that `kind` sees."""
    if views.chosen(plan, setting.precision.device) == "triton":
        tune_views(setting, batch, replace(plan, channels=step_kind(kind).channels))


def tune_views(setting: Setting, batch: Callable[[], Batch], plan: views.TrainPlan) -> None:
    """The views kernel in the blocks that are fastest here, found out once for each size and number format."""
    file = setting.packed / remembered.PLACE
    name = remembered.views_key(plan, setting.precision.device)
    known = remembered.recall_blocks(file, name)
    if known is not None:
        triton_blocks.use(plan, known)
    else:
        remembered.keep_blocks(file, name, triton_blocks.tune(plan, lambda: views_seconds(batch(), plan)))


class First:
    """The split's first images, as many as a step has, read when they are asked for and then kept."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._batch = setting, None

    def __call__(self) -> Batch:
        if self._batch is None:
            split = self._setting.train
            size = min(self._setting.schedule.batch_size, len(split))
            (self._batch,) = split.batches(np.arange(size), size)
        return self._batch
