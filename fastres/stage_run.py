"""One stage being trained: what the loop asks of it."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from fastres import views
from fastres.data.resident import Batch
from fastres.engine.average import weight_average
from fastres.engine.learning_rate import learning_rate
from fastres.engine.stage_step import first_rate, learning_tensors, stage_step
from fastres.engine.steps import step_kind
from fastres.geometry import Geometry
from fastres.model.freeze import training_mode
from fastres.track.clock import Rate
from fastres.track.gauges import Gauges
from fastres.views.draw import epoch_order

if TYPE_CHECKING:
    from fastres.run import Run


class StageRun:
    """One stage being trained: its row, geometry, step, learning rate and speed."""

    def __init__(self, run: "Run", index: int) -> None:
        schedule = run.schedule
        self.run, self.index, self.row = run, index, schedule.stages[index]
        self.geometry = Geometry(run.manifest.side, self.row.upscale)
        self.steps_per_epoch = math.ceil(len(run.train) / schedule.batch_size)
        kind = run.world.step_class(step_kind(schedule.step), run.sync_bn)
        self.step = stage_step(run.network, self.row, schedule, run.precision, kind)
        self.learning = learning_tensors(self.step)
        lr = first_rate(self.row, schedule)
        self.learning_rate = learning_rate(schedule.lr_policy, lr, self.steps_per_epoch, self.row.epochs)
        self.average = weight_average(run.network, schedule.ema)
        self.rate = Rate()
        self.epoch_train_s = 0.0  # of the epoch's steps so far, those before a resume included
        self.epoch_wait_s = 0.0  # of these, seconds in which the loop had no batch yet
        self._since: float | None = None
        self.gauges = Gauges(self)

    def plan(self, epoch: int) -> views.TrainPlan:
        """The epoch's training views; chance counts epochs from 1, 0 is surgery's."""
        return views.TrainPlan(
            geometry=self.geometry, settings=self.run.schedule.views, seed=self.run.seed, stage=self.index,
            epoch=epoch + 1, dtype=self.run.precision.dtype,
        )  # fmt: skip

    def order(self, epoch: int) -> np.ndarray:
        """The epoch's permutation of the training ids, i64 [N]."""
        return epoch_order(len(self.run.train), seed=self.run.seed, stage=self.index, epoch=epoch + 1)

    def faulty_batch(self, epoch: int) -> dict:
        """Everything needed to make the epoch's first batch again whose loss was not finite: chance is a function."""
        first, size = self.step.good_steps(), self.run.schedule.batch_size
        return {
            "seed": self.run.seed, "stage": self.index, "stage_name": self.row.name, "epoch": epoch + 1,
            "step": first + 1, "lr": self.learning_rate.at(epoch * self.steps_per_epoch + first),
            "ids": self.order(epoch)[first * size : (first + 1) * size].tolist(),
        }  # fmt: skip

    def training_mode(self) -> None:
        training_mode(self.run.network, self.row)

    def fed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; counts the time the loop waits for each."""
        source = iter(batches)
        while True:
            since = time.perf_counter()
            batch = next(source, None)
            self.epoch_wait_s += time.perf_counter() - since
            if batch is None:
                return
            yield batch

    @contextmanager
    def epoch_running(self) -> Iterator[None]:
        """Count the time of an epoch's steps."""
        self._since = time.perf_counter()
        with self.rate.running():
            yield
        self.stop_clock()

    @property
    def train_s(self) -> float:
        """Seconds of the epoch's steps so far, for a checkpoint inside it."""
        return self.epoch_train_s + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def stop_clock(self) -> None:
        """Add what has passed to the epoch's seconds."""
        if self._since is not None:
            self.epoch_train_s += time.perf_counter() - self._since
            self._since = None
