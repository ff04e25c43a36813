"""What happens to the network between two stages: new head, new stem, re-estimated BatchNorm statistics."""

import torch

from fastres.model.freeze import recalibrate
from fastres.model.network import ResNet
from fastres.model.pullback import pull_back
from fastres.model.surgery import replace_and_initialise_stem, reset_head, select_head
from fastres.schedules.types import KNOWN_HEAD
from fastres.stage.setting import Setting

GAIN_VIEWS = 512
RECALIBRATION_VIEWS = 2048


def operate(network: ResNet, stage_index: int, setting: Setting) -> None:
    """Do the stage's surgery in place, in the order its row states, then recalibrate if its `bn` rule says so.

    Whether the stage's surgery fits network and data is known before any stage runs: see rehearsal.py.
    """
    schedule = setting.schedule
    stage = schedule.stages[stage_index]
    # one stream per stage: what one operation draws never depends on the stages before
    generator = torch.Generator().manual_seed(setting.seed * 1000 + stage_index)
    for operation in stage.surgery:
        if operation == "fc":
            reset_head(network, setting.manifest.num_classes, generator)
        elif operation == KNOWN_HEAD:
            select_head(network, setting.manifest.wnids)
        else:
            before = schedule.stages[stage_index - 1].upscale if stage_index else 4 * stage.upscale
            _operate_on_stem(network, operation.removeprefix("stem:"), generator, stage_index, before, setting)
    network.to(memory_format=torch.channels_last)
    if stage.bn == "recalibrated":
        dtype = setting.precision.dtype
        inputs = setting.inputs(stage_index, stage.upscale, RECALIBRATION_VIEWS, dtype, stage.whole)
        recalibrate(network, inputs, setting.precision.autocast)


def _operate_on_stem(
    network: ResNet, init: str, generator: torch.Generator, stage_index: int, before: int, setting: Setting
) -> None:
    after, convention = setting.schedule.stages[stage_index].upscale, setting.schedule.views.convention
    replace_and_initialise_stem(
        network,
        init,
        generator,
        large=lambda: setting.inputs(stage_index, before, GAIN_VIEWS, torch.float32),
        small=lambda: setting.inputs(stage_index, after, GAIN_VIEWS, torch.float32),
        pull_back=lambda filters: pull_back(
            filters,
            setting.inputs(stage_index, 1, GAIN_VIEWS, torch.float32),
            side=setting.manifest.side,
            before=before,
            after=after,
            convention=convention,
        ),
    )
