"""What surgery measures on, and what its fresh weights are drawn from."""

from dataclasses import replace

import pytest
import torch

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.device import Precision
from fastres.machine.processes.world import World
from fastres.model.network import Architecture, build
from fastres.model.surgery import replace_and_initialise_stem
from fastres.schedules.types import ViewSettings
from fastres.stage.operate import operate
from fastres.stage.setting import Setting
from fastres.views.draw import epoch_order
from fastres.views.geometry import Geometry
from tests.conftest import TINY

CPU = Precision("fp32", torch.device("cpu"))


@pytest.fixture
def setting(packed):
    """Views with erasing and MixUp, which nothing is to be measured on."""
    manifest = load_manifest(packed)
    splits = [Resident(packed, manifest, split, CPU.device) for split in ("train", "val")]
    mixed = replace(TINY, views=ViewSettings(erasing=1.0, mixup=0.2))
    return Setting(mixed, 0, packed, manifest, *splits, CPU, World(CPU.device))


def network():
    torch.manual_seed(0)
    return build(Architecture("resnet18", 8, 4))


def test_the_gain_is_of_the_old_and_the_new_size_the_statistics_of_the_new(setting, monkeypatch):
    asked, original = [], Setting.inputs

    def noted(self, stage, upscale, count, dtype, whole=False):
        asked.append((upscale, count, whole))
        return original(self, stage, upscale, count, dtype, whole)

    monkeypatch.setattr(Setting, "inputs", noted)
    operate(network(), 2, setting)
    assert asked == [(4, 512, False), (1, 512, False), (1, 2048, False)]


@pytest.mark.parametrize("whole", [False, True])
def test_surgery_sees_the_views_of_its_own_epoch_not_mixed(setting, whole):
    found = torch.cat(list(setting.inputs(2, 1, 16, torch.float32, whole)))
    ids = epoch_order(40, seed=0, stage=2, epoch=0)[:16]
    (batch,) = setting.train.batches(ids, 16)
    plan = views.TrainPlan(
        geometry=Geometry(16, 1, whole), settings=ViewSettings(), seed=0, stage=2, epoch=0, dtype=torch.float32
    )
    assert torch.equal(found, views.apply(batch.images, batch.rows, batch.ids, plan))


def test_a_fresh_head_is_its_seeds_and_its_stages(setting):
    def head(seed, stage):
        fresh = network()
        operate(fresh, stage, replace(setting, seed=seed, schedule=replace(TINY, stages=(TINY.stages[0],) * 3)))
        return torch.cat([fresh.fc.weight.flatten(), fresh.fc.bias]).detach()

    first = head(0, 0)
    assert torch.equal(first, head(0, 0)), "its bias too, whatever torch drew before"
    assert not torch.equal(first, head(1, 0)) and not torch.equal(first, head(0, 1))
    assert first.abs().max() <= (1 / 64) ** 0.5 and first.std() == pytest.approx((1 / 64 / 3) ** 0.5, rel=0.15)


def test_a_blank_first_layer_has_kaimings_deviation():
    wide = build(Architecture("resnet18", 64, 4))
    replace_and_initialise_stem(wide, "blank", torch.Generator().manual_seed(0), lambda: None, lambda: None)
    assert wide.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
