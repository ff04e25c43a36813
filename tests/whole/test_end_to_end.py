"""The main job whole: on a tree this project did not make, and on the small world with the shipped net."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from fastres.model.network import Architecture, describe
from fastres.model.reading import read_weights
from fastres.model.weights import SHIPPED
from fastres.schedules.small import NETS
from tests.support import pretrained
from tests.support.demo import command
from tests.support.stems import Stems
from tests.support.trees import ODDITIES, write_tree


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_paper_on_a_foreign_tree(tmp_path):
    """30 classes of 64 pixels with oddities, a torchvision-format file of weights, all four stages at 224 and 56."""
    tree = tmp_path / "tiny-imagenet-200"
    write_tree(tree, classes=30, side=64, train=1, val=1, test=6, most_val=10)
    packed, run = tmp_path / "packed", tmp_path / "run"
    done = command("preprocess/pack.py", "--source", tree, "--out", packed, "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((packed / "manifest.json").read_text())
    assert manifest["side"] == 64 and len(manifest["classes"]) == 30
    assert manifest["splits"]["train"]["converted"] == ODDITIES["train"]["converted"]

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    settings = [f"--set=stages.{i}.epochs=1" for i in range(4)]
    done = command(
        "-m",
        "fastres.train",
        "--schedule",
        "paper",
        "--data",
        packed,
        "--run-dir",
        run,
        "--weights",
        tmp_path / "resnet18.pth",
        "--set",
        "batch_size=10",
        *settings,
        "--wandb",
        "off",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [stage["name"] for stage in summary["stages"]] == ["fc", "all", "conv1", "all-56"]
    assert summary["count"] == 10
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["crop"] for record in log if record["event"] == "stage"] == [224, 224, 56, 56]

    done = command("-m", "fastres.evaluate", run, "--split", "test", "--submission", tmp_path / "answers.txt")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "answers.txt").read_text().splitlines()
    assert len(lines) == 6 and lines[2].startswith("test_2.JPEG n")
    done = command("-m", "fastres.evaluate", run, "--json")
    again = json.loads(done.stdout)["errors"]["expsum"]["12-crop"]
    assert again == summary["errors"]["expsum"]["12-crop"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_demo_ends_well_under_half_of_chance(demo_run):
    """20 classes: chance errs 95 %; the issue asks for 47.5 % at most."""
    run, done = demo_run
    summary = json.loads((run / "summary.json").read_text())
    for method in ("full", "centre", "10-crop", "12-crop"):
        assert summary["errors"]["expsum"][method]["top1"] <= 47.5
        assert method in done.stdout
    assert all(path in done.stdout and Path(path).stat().st_size > 2_000 for path in summary["pictures"])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_stem_before_any_training(demo_world, demo_run):
    """tests/support/stems.py says what is told apart."""
    stems = Stems(demo_world, demo_run[0])
    before = stems.error(stems.network(), 4)
    after = {init: stems.operated(init) for init in ("antialias", "torch7", "torch7-raw", "pullback", "blank")}
    small_filters_alone = stems.operated("antialias", pool=nn.MaxPool2d(3, stride=1, padding=1))
    unpooled = stems.network()  # the old filters at every fourth pixel: where the new ones look
    unpooled.conv1.stride, unpooled.maxpool = (4, 4), nn.Identity()
    stems.recalibrate(unpooled, 4)
    pool_alone = stems.error(unpooled, 4)
    print(f"before {before:.1f}, {after}, small filters alone {small_filters_alone:.1f}, pool alone {pool_alone:.1f}")

    assert before < 47.5
    assert small_filters_alone <= before + 10 + 3  # points; three are the chance of 1,000 images and one run
    assert pool_alone >= before + 10
    # beside the pool that went, shrinking the filters costs no more than it does alone
    assert after["antialias"] <= pool_alone + 10
    assert after["antialias"] < after["torch7"] - 3 and after["antialias"] < after["torch7-raw"] - 3
    assert after["pullback"] < after["torch7"] - 3
    assert after["blank"] >= 85


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.NETS)
def test_first_steps_of_the_pretraining_can_be_remade(name):
    """The shipped net's recipe: its first losses, from freshly rendered images."""
    recorded = pretrained.recorded(name)
    assert pretrained.first_losses(*pretrained.NETS[name]) == pytest.approx(recorded, abs=pretrained.TOLERANCE)
    assert recorded[0] == pytest.approx(3.7, abs=0.6)  # the logarithm of 40 classes


@pytest.mark.parametrize("name", pretrained.NETS)
def test_shipped_nets_are_small_and_known(name):
    path, (schedule, _) = SHIPPED / f"{name}.safetensors", pretrained.NETS[name]
    assert path.stat().st_size < 5_000_000
    assert describe(read_weights(path)) == Architecture(schedule.arch, 16, 40)
    assert f"shipped:{name}" in NETS[schedule.arch], "the study knows it"
