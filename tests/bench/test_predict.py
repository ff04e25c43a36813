"""bench predict: both commands for real on a few drawn photos."""

import csv
import json
import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.models import ResNet18_Weights

from fastres.bench import __main__ as bench
from fastres.bench import harness, predict
from fastres.bench.predict import agreement, write_photos, write_weights
from fastres.machine.errors import UsageError


@pytest.mark.slow
@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_both_ways_run_and_their_answers_are_compared(tmp_path, capfd):
    photos, weights = write_photos(tmp_path / "photos", 6), write_weights(tmp_path / "net.safetensors")
    options = [
        "--photos",
        photos,
        "--weights",
        weights,
        "--rounds",
        "1",
        "--device",
        "cpu",
        "--json",
        tmp_path / "p.json",
    ]
    assert bench.main(["predict", *map(str, options)]) == 0
    printed = capfd.readouterr().out
    assert "**fastres float32**" in printed and "| timm float32" in printed
    result = json.loads((tmp_path / "p.json").read_text())
    assert len(result["rows"]) == 2 and len(result["ratios"]) == 1
    assert all(row["img_per_s"] > 0 for row in result["rows"])
    assert 0 <= result["same_first_answer_pct"] <= 100


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}], ids=str)
def test_both_commands_have_the_tuned_environment_and_the_record_says_how_threads_wait(tmp_path, monkeypatch, given):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environments = []

    def timed(command, environment):
        environments.append(environment)
        names = [command[k + 1] for k, word in enumerate(command) if word == "--csv"] or [command[5]]
        Path(names[0]).write_text("image\n" * 3)
        return 1.0, 0

    monkeypatch.setattr(predict, "timed", timed)
    args = SimpleNamespace(device=torch.device("cpu"), photos=tmp_path, weights=None, rounds=1)
    monkeypatch.setattr(predict, "write_weights", lambda file: file)
    result = predict.measure(args)
    ours, theirs = environments
    assert ours == theirs == {**harness.TUNED, **os.environ} and ours["MALLOC_MMAP_MAX_"] == "0"
    assert result["machine"]["threads_wait"]["OMP_WAIT_POLICY"] == given.get("OMP_WAIT_POLICY", "PASSIVE")
    assert [row["img_per_s"] for row in result["rows"]] == [2.0, 3.0]


def test_answers_agree_by_name_and_number(tmp_path):
    with open(tmp_path / "theirs.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["a", 3, 0.5], ["b", 134, 0.5], ["c", 5, 0.5], ["d", 7, 0.1], ["no JPEG of ours", 1, 0.5]]
        )
    imagenet = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    ours = {"a": imagenet[3], "b": f"{imagenet[134]} (134)", "c": imagenet[6], "d": "class 7", "e.webp": "hen"}
    assert agreement(ours, tmp_path / "theirs.csv") == 75.0


def test_refuses_what_cannot_be():
    with pytest.raises(UsageError, match="--images are 1 or more"):
        bench.main(["predict", "--images", "0"])
    with pytest.raises(UsageError, match="--batch means nothing"):
        bench.main(["predict", "--batch", "3"])
