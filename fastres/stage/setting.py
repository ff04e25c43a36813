"""What is the same throughout a run, whatever stage it is in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from fastres import views
from fastres.data.batch import Split
from fastres.data.manifest import Manifest
from fastres.machine.device import Precision
from fastres.machine.processes.world import World
from fastres.schedules.types import Schedule
from fastres.views.draw import epoch_order
from fastres.views.geometry import Geometry

# Epochs of training count from 1; epoch 0 of a stage is the stream of views that surgery measures on.
SURGERY_EPOCH = 0


@dataclass(frozen=True)
class Setting:
    """What is trained, on which data, where, and with whom.

    packed      the folder of the data, `manifest` what lies in it
    train, val  its splits on the device of `precision`
    world       the processes that share the run
    sync_bn     whether BatchNorm's statistics are of the global batch
    """

    schedule: Schedule
    seed: int
    packed: Path
    manifest: Manifest
    train: Split
    val: Split
    precision: Precision
    world: World
    sync_bn: bool = False

    def inputs(
        self, stage: int, upscale: int, count: int, dtype: torch.dtype, whole: bool = False
    ) -> Iterator[torch.Tensor]:
        """The first `count` training views of the stage's surgery epoch, in batches, dtype [B, 3, H, H]: nothing erased
        or mixed, as the network will see when it is used; crops, or `whole` images."""
        plan = views.TrainPlan(
            geometry=Geometry(self.manifest.side, upscale, whole),
            settings=self.schedule.views.unmixed(),
            seed=self.seed,
            stage=stage,
            epoch=SURGERY_EPOCH,
            dtype=dtype,
        )
        ids = epoch_order(len(self.train), seed=self.seed, stage=stage, epoch=SURGERY_EPOCH)[:count]
        for batch in self.train.batches(ids, self.schedule.batch_size):
            yield views.apply(batch.images, batch.rows, batch.ids, plan)
