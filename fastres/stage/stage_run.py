"""One stage being trained: what the loop asks of it."""

import math

import numpy as np

from fastres import views
from fastres.model.freeze import training_mode
from fastres.model.network import ResNet
from fastres.stage.average import weight_average
from fastres.stage.choosing.choose import choose, taken_up
from fastres.stage.learning_rate import learning_rate
from fastres.stage.setting import SURGERY_EPOCH, Setting
from fastres.stage.shared_step import shared
from fastres.stage.speed import Speed
from fastres.stage.stage_step import first_rate, learning_tensors, stage_step, step_kind
from fastres.views.draw import epoch_order
from fastres.views.geometry import Geometry


class StageRun:
    """One stage being trained: its row, geometry, step, learning rate, average of the weights, and speed."""

    def __init__(self, setting: Setting, network: ResNet, index: int, state: dict | None = None) -> None:
        """Freezes `network`, on its device and past the stage's surgery, as the stage's row says.

        state  of the stage that is resumed (see state_dict), the kind of its step with it; None: it begins
        """
        schedule, world = setting.schedule, setting.world
        self.index, self.row = index, schedule.stages[index]
        self._setting, self._network = setting, network
        self.geometry = Geometry(setting.manifest.side, self.row.upscale, self.row.whole)
        self.steps_per_epoch = math.ceil(len(setting.train) / schedule.batch_size)
        steps = self.steps_per_epoch * self.row.epochs
        begun_as = (state or {}).get("kind")
        plan = self.plan(SURGERY_EPOCH - 1)
        self.choice = taken_up(setting, plan, begun_as) if begun_as else choose(setting, network, self.row, plan, steps)
        made_by = step_kind(self.choice.kind)
        if world.size > 1:
            made_by = shared(made_by, world, setting.sync_bn)
        self.step = stage_step(network, self.row, schedule, setting.precision, made_by)
        self.learning = learning_tensors(self.step)
        lr = first_rate(self.row, schedule)
        self.learning_rate = learning_rate(schedule.lr_policy, lr, self.steps_per_epoch, self.row.epochs)
        self.average = weight_average(network, schedule.ema)
        self._orders: dict[int, np.ndarray] = {}  # of the epoch asked for last
        self.speed = Speed(network, self.row.train, self.geometry.crop, setting.precision, world.size)
        if state is not None:
            self._load(state)

    def plan(self, epoch: int) -> views.TrainPlan:
        """The epoch's training views; chance counts epochs from 1, 0 is surgery's."""
        return views.TrainPlan(
            geometry=self.geometry,
            settings=self._setting.schedule.views,
            seed=self._setting.seed,
            stage=self.index,
            epoch=epoch + 1,
            dtype=self._setting.precision.dtype,
        )

    def order(self, epoch: int) -> np.ndarray:
        """The epoch's permutation of the training ids, i64 [N]; kept until another epoch's is asked for: 100,000 take
        45 ms, which a GPU need not wait for."""
        if epoch not in self._orders:
            count, setting = len(self._setting.train), self._setting
            self._orders = {epoch: epoch_order(count, seed=setting.seed, stage=self.index, epoch=epoch + 1)}
        return self._orders[epoch]

    def faulty_batch(self, epoch: int) -> dict:
        """Everything needed to make the epoch's first batch again whose loss was not finite: chance is a function."""
        first, size = self.step.good_steps(), self._setting.schedule.batch_size
        return {
            "seed": self._setting.seed,
            "stage": self.index,
            "stage_name": self.row.name,
            "epoch": epoch + 1,
            "step": first + 1,
            "lr": self.learning_rate.at(epoch * self.steps_per_epoch + first),
            "ids": self.order(epoch)[first * size : (first + 1) * size].tolist(),
        }

    def training_mode(self) -> None:
        training_mode(self._network, self.row)

    def state_dict(self) -> dict:
        """What a checkpoint inside the stage keeps beside the network."""
        return {
            "step": self.step.state_dict(),
            "kind": self.choice.kind,
            "learning_rate": self.learning_rate.state_dict(),
            "average": self.average.state_dict(),
            "epoch_train_s": self.speed.train_s,
            "epoch_wait_s": self.speed.wait_s,
        }

    def _load(self, state: dict) -> None:
        self.step.load_state_dict(state["step"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.average.load_state_dict(state["average"])
        self.speed.train_s_before, self.speed.wait_s = state["epoch_train_s"], state["epoch_wait_s"]
