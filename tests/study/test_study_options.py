"""The study's options: a dry run, what is refused, how many runs go side by side, what it is to cost."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.schedules import SCHEDULES
from fastres.study import __main__ as study_module
from fastres.study.jobs import plan
from fastres.study.training import estimate, prepare
from fastres.train.options import Options
from tests.support.study_runs import study


@pytest.mark.slow
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


def test_dry_run_says_what_is_not_installed(packed, launch, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fastres.machine.extras.find_spec", lambda module: None)
    study(packed, tmp_path, "--dry-run", "--engine", "ffcv", code=4)
    assert "ffcv" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--seeds", "0"],
        ["--scale", "0.5"],
        ["--jobs", "0"],
        ["--weights", "resnet18"],
        ["--schedules", "papr"],
        ["--figures", "a", "--check", "b"],
    ],
)
def test_bad_options_are_exit_2(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: study_module.main(options)) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "device,threads,asked,expected",
    [
        ("cpu", 2, None, (2, 1)),
        ("cpu", 1, None, (1, 1)),
        ("cpu", 16, None, (4, 4)),
        ("cpu", 16, 3, (3, 5)),
        ("cpu", 2, 5, (5, 1)),
        ("cuda", 16, None, (1, None)),
        ("cuda", 16, 2, (2, None)),
    ],
)
def test_runs_share_a_cpu_and_a_gpu_takes_one(monkeypatch, device, threads, asked, expected):
    monkeypatch.setattr(prepare, "choose_device", torch.device)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert prepare._shares(SimpleNamespace(device=device, jobs=asked)) == expected


def test_the_estimate_is_the_arithmetic_of_an_epoch(monkeypatch, tmp_path):
    """Of stages whose epochs train 10 s and validate half a second each."""
    schedule = replace(SCHEDULES["paper"], weights=None)
    jobs = plan([schedule], 2, tmp_path / "runs", {"paper": [1] * 4}, images=1000)
    timed = [
        {"epochs": s.epochs, "expected_s": 10.0 * s.epochs, "validation_s": 0.5 * s.epochs} for s in schedule.stages
    ]
    monkeypatch.setattr(estimate, "_stages", lambda options, manifest: timed)
    found = estimate.estimate(jobs, Options, SimpleNamespace(), 2, 1, searches=True)
    one_run = 8.0 + 32 * 10.5 + 12 * 0.5
    trial = 8.0 + 4 * 10.5
    assert found["jobs"][1]["seconds"] == pytest.approx(one_run)
    assert found["search_seconds"] == pytest.approx(4 * trial / 2)
    assert found["seconds"] == pytest.approx((4 * trial + 2 * one_run) / 2)


def test_weights_of_a_mistyped_architecture_are_refused(tmp_path):
    """They were ignored, and the schedule's own taken."""
    (tmp_path / "net.pth").touch()
    with pytest.raises(UsageError, match="no architecture 'resnet-18', did you mean resnet18"):
        prepare._nets([f"resnet-18={tmp_path / 'net.pth'}"])
