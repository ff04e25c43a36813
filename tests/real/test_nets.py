"""ImageNet's ResNet-18 on the real images: without training, predicting, and its head alone trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastres import views
from fastres.data.engines import open_split
from fastres.data.manifest import load_manifest
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate import combining
from fastres.evaluate.scores import score
from fastres.machine.device import choose_precision
from fastres.model.network import Architecture, build
from fastres.model.reading import read_weights
from fastres.model.surgery import select_head
from fastres.model.weights import network_from
from fastres.predict import __main__ as predict
from fastres.schedules import SCHEDULES
from fastres.schedules.types import ViewSettings
from fastres.schedules.writing import write_schedule
from fastres.track.log import read_log
from fastres.train import command as train_command
from fastres.views.geometry import Geometry
from tests.support.packing import arrays

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
CPU = torch.device("cpu")
ZERO_SHOT = 59.8  # % top-1 error of the first five validation images a class, 64 -> 256 by PIL's bicubic, centre 224
HEAD_AFTER_TWO_EPOCHS = 66.0  # % top-1 error, 25 training images a class


@pytest.fixture(autouse=True)
def all_cores(monkeypatch):
    """These nets are large enough for every core; the other tests' are not."""
    import os

    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


def test_without_any_training_its_own_head_errs_as_measured(few, weights, record_property):
    """In the resampling that ImageNet's nets were trained with; the next test has the other one."""
    manifest = load_manifest(few)
    data, network = open_split("resident", few, manifest, "val", CPU), network_from(read_weights(weights), weights)
    select_head(network, manifest.wnids)
    network.to(memory_format=torch.channels_last)
    precision, settings = choose_precision("auto", CPU), ViewSettings(convention="half-pixel")
    plan = views.TestPlan(geometry=Geometry(64, 4), settings=settings, dtype=precision.dtype)
    error = combining.top_errors(score(network, data, plan, precision)[:, 0].double(), data.labels)["top1"]
    record_property("half-pixel", error)
    print(f"zero-shot top-1 error, half-pixel: {error:.1f} %")
    assert error == pytest.approx(ZERO_SHOT, abs=2.0)


def trained(tmp_path, data, weights, schedule, *settings) -> list[dict]:
    """The log of a schedule's first stage alone."""
    first = replace(SCHEDULES[schedule], stages=SCHEDULES[schedule].stages[:1], weights=str(weights))
    file = write_schedule(tmp_path / "schedule.py", first, "for a test")
    words = ["--schedule", file, "--data", data, "--run-dir", tmp_path / "run", "--wandb", "off", "--no-evaluation"]
    words += ["--device", "cpu", "--json", *(f"--set={setting}" for setting in settings)]
    assert train_command.main([str(word) for word in words]) == 0
    return read_log(tmp_path / "run" / "log.jsonl")


def test_known_head_logs_that_error_as_epoch_0(few, weights, tmp_path, record_property):
    """`known-head`, in the paper's resampling: what the run logs before it trains (here on one image a class)."""
    log = trained(tmp_path, few, weights, "known-head", "stages.0.epochs=1")
    (untrained,) = (record for record in log if record["event"] == "untrained")
    record_property("torch7", untrained["val_top1_err"])
    print(f"zero-shot top-1 error, torch7: {untrained['val_top1_err']:.1f} %")
    assert untrained["epoch"] == 0 and untrained["val_top1_err"] == pytest.approx(ZERO_SHOT, abs=2.0)


def test_a_fresh_head_learns_in_two_epochs(half, weights, tmp_path):
    settings = ("batch_size=32", "stages.0.epochs=2")
    log = trained(tmp_path, half, weights, "feature-extractor", *settings)
    errors = [record["val_top1_err"] for record in log if record["event"] == "epoch"]
    assert len(errors) == 2 and errors[1] < HEAD_AFTER_TWO_EPOCHS, errors


def test_the_test_splits_submission(packed, tmp_path, capsys):
    """10,000 lines of the right names, from a net that answers fast and knows nothing."""
    manifest = load_manifest(packed)
    torch.manual_seed(0)
    state = build(Architecture("resnet18", 8, 200, "3x3")).state_dict()
    facts = {"side": 64, "upscale": 1, "convention": "torch7", "class_digest": manifest.class_digest}
    facts["classes"] = [[info.wnid, info.name] for info in manifest.classes]
    save_file(
        {k: v.contiguous() for k, v in state.items()}, tmp_path / "net.safetensors", {"fastres": json.dumps(facts)}
    )
    words = [
        tmp_path / "net.safetensors",
        "--data",
        packed,
        "--split",
        "test",
        "--submission",
        tmp_path / "answers.txt",
    ]
    assert evaluate.main([str(word) for word in words]) == 0
    lines = [line.split(" ") for line in (tmp_path / "answers.txt").read_text().splitlines()]
    assert sorted(name for name, _ in lines) == sorted(f"test_{i}.JPEG" for i in range(10_000))
    assert {wnid for _, wnid in lines} <= set(manifest.wnids)


def test_predict_on_ten_validation_photos(few, tree, weights, capsys):
    """The 1,000-way net names ten photos, some right: mixed-up classes or colours would name none."""
    _, labels, names = arrays(few, "val")
    rows = np.linspace(0, len(names) - 1, 10).astype(int)
    photos = [str(tree / names[row]) for row in rows]
    assert predict.main([*photos, "--model", str(weights), "--views", "centre", "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == photos and all(len(answer["top"]) == 5 for answer in answers)
    true = [load_manifest(few).classes[labels[row]].name for row in rows]
    right = sum(any(name in row["name"] or row["name"] in name for row in answer["top"])
                for name, answer in zip(true, answers, strict=True))  # fmt: skip
    assert right >= 3, [(name, [row["name"] for row in answer["top"]]) for name, answer in zip(true, answers)]
