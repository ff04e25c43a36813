"""The head that ImageNet's nets have for the data's classes: its rows, its error before any training, its refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastres.data.manifest import load_manifest
from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.model.network import Architecture, build
from fastres.model.surgery import IMAGENET_WNIDS, imagenet_rows, select_head
from fastres.schedules.types import KNOWN_HEAD
from fastres.schedules.writing import write_schedule
from fastres.stage.rehearsal import rehearse
from fastres.track.log import read_log
from fastres.train import command as train_command
from tests.conftest import TINY
from tests.support import worlds

IDS = ("n01440764", "n02123045", "n03100240", "n15075141")  # rows 0, 281, 511, 999
ROWS = [0, 281, 511, 999]
STAGES = (replace(TINY.stages[0], surgery=(KNOWN_HEAD,)), TINY.stages[1])


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(Architecture("resnet18", 8, 1000))


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return worlds.pack(tmp_path_factory.mktemp("photos"), ids=IDS)


def train(packed, folder, weights, code=0):
    schedule = replace(TINY, stages=STAGES, weights=str(weights))
    file = write_schedule(folder / "schedule.py", schedule, "for a test")
    words = ["--schedule", file, "--data", packed, "--run-dir", folder / "run", "--wandb", "off", "--precision", "fp32"]
    assert run_command(lambda: train_command.main([str(word) for word in words])) == code


def test_the_ids_are_in_the_order_of_the_heads_outputs():
    ids = IMAGENET_WNIDS.read_text().split()
    assert len(ids) == len(set(ids)) == 1000 and ids == sorted(ids)
    assert imagenet_rows(IDS) == ROWS and imagenet_rows(IDS[::-1]) == ROWS[::-1]


def test_the_rows_are_the_heads_own(net):
    import copy

    ours = copy.deepcopy(net).eval()
    select_head(ours, IDS)
    x = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net.eval()(x)[:, ROWS])


@pytest.mark.slow
def test_the_error_before_any_training_is_epoch_0(net, weights, photos, tmp_path, capsys):
    """Logged once, equal to what the 1,000-way net answers among these classes; and the first epoch follows it."""
    from fastres import views
    from fastres.data.resident import Resident
    from fastres.views.geometry import Geometry

    train(photos, tmp_path, weights)
    records = read_log(tmp_path / "run" / "log.jsonl")
    (untrained,) = (r for r in records if r["event"] == "untrained")
    assert [r["epoch_total"] for r in records if r["event"] in ("untrained", "epoch")] == [0, 1, 2, 3]
    data = Resident(photos, load_manifest(photos), "val", torch.device("cpu"))
    plan = views.TestPlan(geometry=Geometry(16, 4), settings=TINY.views)
    rows = torch.arange(len(data))
    with torch.no_grad():
        scores = net.eval()(views.apply(data.images, rows, rows, plan))[:, ROWS]
    wrong = 100.0 * (scores.argmax(1) != data.labels).double().mean().item()
    assert untrained["val_top1_err"] == pytest.approx(wrong)
    assert "before any training: val top-1 err" in capsys.readouterr().err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [stage["epochs"] for stage in summary["stages"]] == [1, 2], "epoch 0 is none of the stage's epochs"


def test_classes_that_imagenet_has_not_are_named(weights, tmp_path, capsys):
    train(worlds.pack(tmp_path / "packed"), tmp_path, weights, code=2)
    said = capsys.readouterr().err
    assert "4 of the data's 4 classes are none of ImageNet's 1,000: n00000000, n00000001" in said


def test_a_net_with_another_head_is_refused(tmp_path):
    schedule = replace(TINY, stages=STAGES, weights="shipped:small_world_resnet18_w16", width=16)
    with pytest.raises(UsageError, match="20 outputs|40 outputs"):
        rehearse(schedule, 4, 16, wnids=IDS)
