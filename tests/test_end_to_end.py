"""The main job whole: on a tree this project did not make, and on the small world with the shipped net."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from tests.trees import ODDITIES, write_tree

ROOT = Path(__file__).parent.parent


def command(*arguments, **environment) -> subprocess.CompletedProcess:
    """A command as a user types it, from the repository's root."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), **environment}, timeout=900,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_paper_on_a_foreign_tree(tmp_path):
    """200 classes of 64 pixels with oddities, a torchvision-format file of weights, all four stages at 224 and 56."""
    tree = tmp_path / "tiny-imagenet-200"
    write_tree(tree, classes=200, side=64, train=2, val=1, test=20, oddities=True)
    packed, run = tmp_path / "packed", tmp_path / "run"
    done = command("preprocess/pack.py", "--source", tree, "--out", packed, "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((packed / "manifest.json").read_text())
    assert manifest["side"] == 64 and len(manifest["classes"]) == 200
    assert manifest["splits"]["train"]["converted"] == ODDITIES["train"]["converted"]

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    settings = [f"--set=stages.{i}.epochs=1" for i in range(4)]
    done = command("-m", "fastres.train", "--schedule", "paper", "--data", packed, "--run-dir", run, "--weights",
                   tmp_path / "resnet18.pth", "--set", "batch_size=100", *settings, "--wandb", "off", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [stage["name"] for stage in summary["stages"]] == ["fc", "all", "conv1", "all-56"]
    assert summary["count"] == 200
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["crop"] for record in log if record["event"] == "stage"] == [224, 224, 56, 56]

    done = command("-m", "fastres.evaluate", run, "--split", "test", "--submission", tmp_path / "answers.txt")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "answers.txt").read_text().splitlines()
    assert len(lines) == 20 and lines[2].startswith("test_2.JPEG n")
    done = command("-m", "fastres.evaluate", run, "--json")
    again = json.loads(done.stdout)["errors"]["expsum"]["12-crop"]
    assert again == summary["errors"]["expsum"]["12-crop"]


@pytest.fixture(scope="module")
def demo_world(tmp_path_factory):
    """The small world's target, rendered and packed by the command."""
    packed = tmp_path_factory.mktemp("demo") / "packed"
    done = command("preprocess/pack.py", "--small-world", "--out", packed)
    assert done.returncode == 0, done.stderr
    return packed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_ends_well_under_half_of_chance(demo_world, tmp_path):
    """20 classes: chance errs 95 %; the issue asks for 47.5 % at most."""
    run = tmp_path / "run"
    done = command("-m", "fastres.train", "--schedule", "demo", "--data", demo_world, "--run-dir", run)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text())
    for method in ("full", "centre", "10-crop", "12-crop"):
        assert summary["errors"]["expsum"][method]["top1"] <= 47.5
        assert method in done.stdout
    assert all(path in done.stdout and Path(path).stat().st_size > 10_000 for path in summary["pictures"])


@pytest.mark.slow
def test_stem_before_any_training(demo_world):
    """On the shipped net with a trained head, BatchNorm recalibrated: what each way of making the stem leaves.

    Seen when written: 50.0 % before, then antialias 81.7, torch7 88.8, torch7-raw 88.7, blank 93.7 (chance 95).
    `antialias` was wanted within 10 points of the error before, which this world does not give: an open fault, not a
    passed requirement. What is asserted is the order alone.
    """
    from dataclasses import replace

    from fastres import scoring, views
    from fastres.data.manifest import load_manifest
    from fastres.data.resident import Resident
    from fastres.engine.operate import Theatre, operate
    from fastres.engine.optimizer import sgd
    from fastres.engine.precision import Precision
    from fastres.engine.step import EagerStep
    from fastres.evaluate import score
    from fastres.geometry import Geometry
    from fastres.model.freeze import set_trainable, training_mode
    from fastres.model.weights import initial_network
    from fastres.schedules import DEMO
    from fastres.views.draw import epoch_order

    manifest, device = load_manifest(demo_world), torch.device("cpu")
    train, val = (Resident(demo_world, manifest, split, device) for split in ("train", "val"))
    precision = Precision("fp32", device)

    def error(network, upscale):
        plan = views.TestPlan(geometry=Geometry(32, upscale), settings=DEMO.views)
        return scoring.top_errors(score(network, val, plan, precision)[:, 0], val.labels)["top1"]

    def prepared(init):
        """The net with its trained head, operated on as the third stage says, but with this stem."""
        stages = (*DEMO.stages[:2], replace(DEMO.stages[2], surgery=(f"stem:{init}",)))
        network = initial_network(DEMO, 20)
        network.fc = torch.nn.Linear(network.fc.in_features, 20)
        network.load_state_dict(trained)
        theatre = Theatre(replace(DEMO, stages=stages), 0, train, 20, 32, precision)
        operate(network, 2, theatre)
        return network

    network, stage = initial_network(DEMO, 20), DEMO.stages[0]
    operate(network, 0, Theatre(DEMO, 0, train, 20, 32, precision))
    learning = set_trainable(network, stage.train)
    training_mode(network, stage)
    step = EagerStep(network, sgd(learning, DEMO.optimizer, 0.02), precision)
    for epoch in (1, 2, 3):
        plan = views.TrainPlan(geometry=Geometry(32, 4), settings=DEMO.views, seed=0, stage=0, epoch=epoch)
        for batch in train.batches(epoch_order(len(train), seed=0, stage=0, epoch=epoch), 32):
            step(batch, plan, 0.02)
    trained = network.state_dict()
    before = error(network, 4)
    after = {init: error(prepared(init), 1) for init in ("antialias", "torch7-raw", "blank")}
    assert before < 60
    assert after["antialias"] < after["torch7-raw"] - 2 and after["antialias"] < after["blank"] - 5
    assert after["antialias"] < 88 and after["blank"] >= 88


@pytest.mark.slow
def test_first_steps_of_the_pretraining_can_be_remade():
    """The shipped net's recipe: its first losses, from freshly rendered images."""
    from fastres.small_world.pretrained import RECORD, TOLERANCE, first_losses

    recorded = json.loads(RECORD.read_text())["losses"]
    assert first_losses() == pytest.approx(recorded, abs=TOLERANCE)
    assert recorded[0] == pytest.approx(3.7, abs=0.6)  # the logarithm of 40 classes


def test_shipped_net_is_small_and_known():
    from fastres.model.network import Architecture, describe
    from fastres.model.weights import SHIPPED, read_weights

    path = SHIPPED / "small_world_resnet18_w16.safetensors"
    assert path.stat().st_size < 3_000_000
    assert describe(read_weights(path)) == Architecture("resnet18", 16, 40)
