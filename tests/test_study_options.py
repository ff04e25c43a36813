"""The study's options: a dry run, what is refused, how many runs go side by side, what it is to cost."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastres.errors import run_command
from fastres.schedules import SCHEDULES
from fastres.study import __main__ as study_module
from fastres.study import estimate, training
from fastres.study.jobs import plan
from tests.study_runs import study


def test_dry_run_shows_what_is_shared_and_trains_nothing(packed, launch, tmp_path, capsys):
    study(packed, tmp_path, "--dry-run", "--json")
    jobs = {job["system"]: job for job in json.loads(capsys.readouterr().out)["jobs"]}
    assert (jobs["paper"]["shared_with"], jobs["paper"]["shared_stages"]) == ("initialized-fc", 2)
    assert jobs["initialized-fc"]["epochs"] == jobs["paper"]["epochs"] == 2
    assert launch.calls == [] and not (tmp_path / "out" / "runs").exists()
    study(packed, tmp_path, "--dry-run", "--json", "--tune", "--jobs", 2)
    found = json.loads(capsys.readouterr().out)
    seconds = sum(job["seconds"] for job in found["jobs"])
    assert found["seconds"] == pytest.approx(found["search_seconds"] + seconds / 2)


@pytest.mark.parametrize("options", [["--seeds", "0"], ["--scale", "0.5"], ["--jobs", "0"], ["--weights", "resnet18"],
                                     ["--schedules", "papr"], ["--figures", "a", "--check", "b"]])  # fmt: skip
def test_bad_options_are_exit_2(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: study_module.main(options)) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("device,threads,asked,expected", [
    ("cpu", 2, None, (2, 1)), ("cpu", 1, None, (1, 1)), ("cpu", 16, None, (4, 4)), ("cpu", 16, 3, (3, 5)),
    ("cpu", 2, 5, (5, 1)), ("cuda", 16, None, (1, None)), ("cuda", 16, 2, (2, None))])  # fmt: skip
def test_runs_share_a_cpu_and_a_gpu_takes_one(monkeypatch, device, threads, asked, expected):
    monkeypatch.setattr(training, "choose_device", torch.device)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert training._shares(SimpleNamespace(device=device, jobs=asked)) == expected


def test_the_estimate_is_the_arithmetic_of_an_epoch(monkeypatch, tmp_path):
    """Stages of 9, 15, ... epochs that train 10 s each; validation goes forward only, on a tenth of the images."""
    schedule = replace(SCHEDULES["paper"], weights=None)
    jobs = plan([schedule], 2, tmp_path / "runs", {"paper": [1] * 4}, images=1000)
    monkeypatch.setattr(estimate, "_stage_seconds", lambda job, options: [10.0 * s.epochs for s in schedule.stages])
    monkeypatch.setattr(estimate, "stage_flop", lambda plain, classes, side: [
        1 if list(stage["train"]) == ["fc.*"] else 4 for stage in plain["stages"]])  # fmt: skip
    manifest = SimpleNamespace(num_classes=9, side=32, count={"train": 1000, "val": 100}.get)
    found = estimate.estimate(jobs, [], manifest, 2, 1, searches=True)
    forward = 10.0 * 0.1 / 4
    one_run = 8.0 + 32 * 10.0 + 27 * forward + 5 * 1.0 / 4 * 4 + 12 * forward
    trial = 8.0 + 4 * 10.0 + 3 * forward + 1.0
    assert found["jobs"][1]["seconds"] == pytest.approx(one_run)
    assert found["search_seconds"] == pytest.approx(4 * trial / 2)
    assert found["seconds"] == pytest.approx((4 * trial + 2 * one_run) / 2)
