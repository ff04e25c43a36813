"""What happens to the network between two stages: new head, new stem, re-estimated BatchNorm statistics."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torchvision.models.resnet import ResNet

from fastres import views
from fastres.data.engines import Split
from fastres.engine.precision import Precision
from fastres.geometry import Geometry
from fastres.model.freeze import recalibrate
from fastres.model.pullback import pull_back
from fastres.model.surgery import replace_and_initialise_stem, reset_head
from fastres.schedule_types import Schedule
from fastres.views.draw import epoch_order

# Epochs of training count from 1; epoch 0 of a stage is the stream of views that surgery measures on.
SURGERY_EPOCH = 0
GAIN_VIEWS = 512
RECALIBRATION_VIEWS = 2048


@dataclass(frozen=True)
class Theatre:
    """What an operation may use: training images, the schedule and its seed, device and precision."""

    schedule: Schedule
    seed: int
    data: Split
    classes: int
    side: int
    precision: Precision

    def inputs(self, stage: int, upscale: int, count: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The first `count` training views of the stage's surgery epoch, in batches, dtype [B, 3, H, H]."""
        plan = views.TrainPlan(
            geometry=Geometry(self.side, upscale), settings=self.schedule.views, seed=self.seed, stage=stage,
            epoch=SURGERY_EPOCH, dtype=dtype,
        )  # fmt: skip
        ids = epoch_order(len(self.data), seed=self.seed, stage=stage, epoch=SURGERY_EPOCH)[:count]
        for batch in self.data.batches(ids, self.schedule.batch_size):
            yield views.apply(batch.images, batch.rows, batch.ids, plan)


def operate(network: ResNet, stage_index: int, theatre: Theatre) -> None:
    """Do the stage's surgery in place, in the order its row states, then recalibrate if its `bn` rule says so.

    Whether the stage's surgery fits network and data is known before any stage runs: see rehearsal.py.
    """
    schedule = theatre.schedule
    stage = schedule.stages[stage_index]
    # one stream per stage: what one operation draws never depends on the stages before
    generator = torch.Generator().manual_seed(theatre.seed * 1000 + stage_index)
    for operation in stage.surgery:
        if operation == "fc":
            reset_head(network, theatre.classes, generator)
        else:
            before = schedule.stages[stage_index - 1].upscale if stage_index else 4
            _operate_on_stem(network, operation.removeprefix("stem:"), generator, stage_index, before, theatre)
    network.to(memory_format=torch.channels_last)
    if stage.bn == "recalibrated":
        inputs = theatre.inputs(stage_index, stage.upscale, RECALIBRATION_VIEWS, theatre.precision.dtype)
        recalibrate(network, inputs, theatre.precision.autocast)


def _operate_on_stem(
    network: ResNet, init: str, generator: torch.Generator, stage_index: int, before: int, theatre: Theatre
) -> None:
    after, convention = theatre.schedule.stages[stage_index].upscale, theatre.schedule.views.convention
    replace_and_initialise_stem(
        network, init, generator,
        large=lambda: theatre.inputs(stage_index, before, GAIN_VIEWS, torch.float32),
        small=lambda: theatre.inputs(stage_index, after, GAIN_VIEWS, torch.float32),
        pull_back=lambda filters: pull_back(
            filters, theatre.inputs(stage_index, 1, GAIN_VIEWS, torch.float32), side=theatre.side, before=before,
            after=after, convention=convention,
        ),
    )  # fmt: skip
