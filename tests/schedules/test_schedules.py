"""Schedules state what the paper states; settings are checked; every shipped schedule can be told apart and run."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.schedules import DEMO, PAPER, SCHEDULES
from fastres.schedules.loading import load_schedule, override
from fastres.schedules.types import Optimizer, Plateau, Schedule, Stage, ViewSettings, WarmupCosine
from fastres.stage.learning_rate import CosineRate, PlateauRate
from tests.support.setup_py import ROOT, requirements


def test_paper_is_the_papers():
    assert [(s.name, s.epochs, s.train, s.upscale, s.surgery, s.bn) for s in PAPER.stages] == [
        ("fc", 5, ("fc.*",), 4, ("fc",), "frozen"),
        ("all", 10, ("*",), 4, (), "frozen"),
        ("conv1", 4, ("conv1.*",), 1, ("stem:torch7",), "recalibrated"),
        ("all-56", 13, ("*",), 1, (), "frozen"),
    ]
    assert PAPER.epochs == 32 and PAPER.batch_size == 256 and PAPER.arch == "resnet18"
    optimizer = PAPER.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.01, 0.9, True, 1e-4)
    assert (PAPER.expected["12-crop top1"], PAPER.expected["12-crop top5"]) == (24.99, 8.14)


def test_demo_has_the_papers_stages():
    for paper, demo in zip(PAPER.stages, DEMO.stages, strict=True):
        assert all(getattr(paper, name) == getattr(demo, name) for name in ("train", "upscale", "surgery", "bn"))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_survives_json(name):
    assert SCHEDULES[name].name == name
    assert json.loads(json.dumps(SCHEDULES[name].to_dict()))["stages"][0]["epochs"] >= 1


def test_overrides_reach_their_place_and_only_it():
    changed = override(
        PAPER,
        [
            "stages.0.epochs=1",
            "batch_size=64",
            "optimizer.lr=0.02",
            "views.flip=0",
            "stages.1.train=fc.*,layer4.*",
            "weights=none",
            "optimizer.nesterov=false",
            "stages.2.lr=0.1",
        ],
    )
    assert changed.stages[0].epochs == 1 and changed.stages[1].epochs == 10
    assert changed.batch_size == 64 and changed.optimizer.lr == 0.02 and changed.views.flip == 0
    assert changed.stages[1].train == ("fc.*", "layer4.*") and changed.weights is None
    assert changed.optimizer.nesterov is False and changed.stages[2].lr == 0.1
    assert PAPER.stages[0].epochs == 5  # the table itself is frozen


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "setting,sentence",
    [
        ("optimizer.lrr=1", "did you mean 'lr'"),
        ("batchsize=1", "did you mean 'batch_size'"),
        ("optimizer.lr=abc", "expected a number"),
        ("optimizer.lr=nan", "expected a finite number"),
        ("batch_size=0", "expected 1 or more"),
        ("batch_size=2.5", "expected a whole number"),
        ("stages.0.epochs=-1", "expected 1 or more"),
        ("stages.9.epochs=1", "expected 0 to 3"),
        ("stages.0=1", "expected one of its fields"),
        ("stages=1", "names a group"),
        ("optimizer=1", "names a group"),
        ("batch_size.x=1", "has no parts"),
        ("batch_size", "has no '='"),
        ("optimizer.nesterov=maybe", "expected true or false"),
        ("stages.2.surgery=stem:sharp", "expected one of"),
        ("stages.2.bn=batches", "expected one of"),
        ("views.convention=nearest", "half-pixel or torch7"),
        ("optimizer.momentum=0", "false when momentum is 0"),
        ("name=x", "is not known"),
    ],
)
def test_bad_settings_are_one_sentence_and_exit_2(setting, sentence, capsys):
    from fastres.train import command as train_command

    command = ["--schedule", "paper", "--set", setting, "--data", "/nonexistent"]
    assert run_command(lambda: train_command.main(command)) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_unknown_schedule_names_the_nearest(capsys):
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        load_schedule("papr")


@pytest.mark.fault(47)
def test_schedule_files(tmp_path):
    good = tmp_path / "mine.py"
    good.write_text(
        "from dataclasses import replace\nfrom fastres.schedules import PAPER\nSCHEDULE = replace(PAPER, name='mine')\n"
    )
    assert load_schedule(str(good)).name == "mine"
    old = tmp_path / "old.py"  # types.py had another name once
    old.write_text(good.read_text().replace("\nSCHEDULE", "\nfrom fastres.schedule_types import Stage\nSCHEDULE"))
    assert load_schedule(str(old)).name == "mine"
    for text, sentence in (
        ("x = 1\n", "defines no SCHEDULE"),
        ("import nothing_of_that_name\n", "does not run: ModuleNotFoundError"),
        ("SCHEDULE = (\n", "does not run: SyntaxError"),
        ("import sys; sys.exit(0)\n", "does not run: SystemExit: 0"),
        ("raise SystemExit\n", "does not run: SystemExit"),
    ):
        bad = tmp_path / "bad.py"
        bad.write_text(text)
        with pytest.raises(UsageError, match=sentence):
            load_schedule(str(bad))
    with pytest.raises(UsageError, match="does not exist"):
        load_schedule(str(tmp_path / "none.py"))


def test_rows_check_themselves():
    row = {"name": "x", "epochs": 1, "train": ("*",), "upscale": 4}
    for wrong in ({"epochs": 0}, {"train": ()}, {"upscale": 0}, {"bn": "odd"}, {"surgery": ("head",)}, {"lr": 0.0}):
        with pytest.raises(UsageError):
            Stage(**{**row, **wrong})
    with pytest.raises(UsageError):
        Schedule(name="x", stages=())


def plateau(errors, **settings):
    """Rates in force during each epoch, starting from 1."""
    rate, used = PlateauRate(Plateau(**settings), 1.0), []
    for error in errors:
        used.append(rate.at(0))
        rate.after_epoch(error)
    return used


def test_plateau_waits_three_epochs_of_no_notable_improvement():
    assert plateau([50, 40, 30, 20, 10]) == [1] * 5
    # averages: 50, 45, 40, then 40, 40, 40 again: the third flat one lowers
    assert plateau([50, 40, 30, 50, 40, 30, 50]) == pytest.approx([1, 1, 1, 1, 1, 1, 0.1])
    # 0.4 points an epoch is not notable against the best, until it adds up to 0.5
    assert plateau([50, 49.6, 49.2, 48.8, 48.4, 48.0, 47.6], window=1) == [1] * 7
    assert plateau([50, 49.9, 49.8, 49.7, 49.6], window=1) == pytest.approx([1, 1, 1, 1, 0.1])


def test_plateau_uses_the_running_average_not_the_last_error():
    noisy = [50, 60, 40, 50, 60, 40]  # a lucky 40 twice, average flat at 50
    assert plateau(noisy, window=3, patience=3) == pytest.approx([1, 1, 1, 1, 0.1, 0.1])
    assert plateau(noisy, window=1, patience=3)[-1] == 1


def test_plateau_counts_anew_after_lowering_and_resumes_exactly():
    flat = [50] * 8
    assert plateau(flat, patience=3) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    whole, first = PlateauRate(Plateau(), 1.0), PlateauRate(Plateau(), 1.0)
    for error in flat[:5]:
        whole.after_epoch(error)
        first.after_epoch(error)
    second = PlateauRate(Plateau(), 1.0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for error in flat[5:]:
        whole.after_epoch(error)
        second.after_epoch(error)
        assert second.at(0) == whole.at(0)


def test_cosine_warms_up_and_ends_near_zero():
    rate = CosineRate(WarmupCosine(warmup_epochs=1), 1.0, 10, 5)
    rates = [rate.at(step) for step in range(50)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == 1.0 and max(rates) == 1.0
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False)) and 0 < rates[-1] < 0.01


def test_environment_yml_lists_what_setup_py_requires():
    """By agreement only: conda itself is not run."""
    lines = (ROOT / "environment.yml").read_text().splitlines()
    listed = {line.strip(" -") for line in lines if line.startswith("      - ")}
    assert listed - {"e ."} == set(requirements()[1])


def test_warnings_are_errors():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"


ROW = {"name": "all", "epochs": 3, "train": ("*",), "upscale": 4}


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Stage(**{**ROW, "epochs": 2.5}), "epochs of stage all is 2.5, expected a whole number"),
        (lambda: Stage(**{**ROW, "epochs": "3"}), "epochs of stage all is '3', expected a whole number"),
        (lambda: Stage(**{**ROW, "epochs": True}), "epochs of stage all is True, expected a whole number"),
        (lambda: Stage(**{**ROW, "train": "*"}), "train of stage all is '*', expected a tuple of texts"),
        (lambda: Stage(**{**ROW, "lr_factors": {"fc.*": "2"}}), "lr_factors of stage all is '2', expected a finite"),
        (lambda: Stage(**{**ROW, "lr": float("nan")}), "lr of stage all is nan, expected a finite number"),
        (lambda: Optimizer(lr=float("inf")), "optimizer.lr is inf, expected a finite number"),
        (lambda: Optimizer(nesterov="yes"), "optimizer.nesterov is 'yes', expected a bool"),
        (lambda: ViewSettings(flip=None), "views.flip is None, expected a finite number"),
        (lambda: Schedule(name="x", stages=("all",)), "stages is 'all', expected a Stage"),
        (lambda: Schedule(name="x", stages=(Stage(**ROW),), batch_size=64.0), "batch_size is 64.0, expected a whole"),
        (lambda: Schedule(name="x", stages=(Stage(**ROW),), lr_policy="Plateau"), "expected a Plateau or WarmupCosine"),
        (lambda: Schedule(name="x", stages=(Stage(**ROW),), weights=3), "weights is 3, expected a text"),
    ],
)
def test_a_field_of_another_type_is_said_by_its_name(make, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make()


def test_what_loses_nothing_is_taken():
    """A list, a path, NumPy's numbers: the same row as from a tuple, a text, Python's."""
    given = Schedule(
        name="x", stages=[Stage(**{**ROW, "epochs": np.int64(3), "train": ["*"]})], weights=Path("a/b.pth")
    )
    assert given == Schedule(name="x", stages=(Stage(**ROW),), weights="a/b.pth")
    assert json.loads(json.dumps(given.to_dict())) and type(given.stages[0].epochs) is int
