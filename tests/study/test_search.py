"""The randomized search: its space, its trials, what goes on where, and what it leaves."""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fastres.machine.errors import Diverged, MachineError, UsageError
from fastres.schedules import DEMO, PAPER, SCHEDULES
from fastres.schedules.loading import load_schedule, override
from fastres.schedules.writing import as_source, write_schedule
from fastres.study.search import storage
from fastres.study.search.space import Choice, apply, first_epochs, paper_space
from fastres.study.search.storage import open_storage
from fastres.train import command as train_command
from fastres.train.options import Options
from tests.conftest import TINY
from tests.support.search_runs import raising, search, trials_in

optuna = pytest.importorskip("optuna")


def test_space_is_around_the_schedule_and_draws_stay_inside():
    space = paper_space(PAPER)
    assert (space["optimizer.lr"].low, space["optimizer.lr"].high) == pytest.approx((0.001, 0.1))
    assert space["batch_size"] == Choice((32, 64, 128, 256, 512)) and paper_space(DEMO)["batch_size"].values[0] == 4
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(50):
        trial = study.ask()
        settings = {name: kind.suggest(trial, name) for name, kind in space.items()}
        changed = apply(PAPER, settings)  # every draw is a valid schedule
        assert 0.001 <= changed.optimizer.lr <= 0.1 and changed.batch_size in (32, 64, 128, 256, 512)
        assert changed.views.brightness == changed.views.contrast == changed.views.saturation <= 0.8
        assert changed.stages == PAPER.stages


@pytest.mark.parametrize("epochs,left", [(1, [1]), (3, [3]), (5, [5]), (7, [5, 2]), (32, [5, 10, 4, 13])])
def test_first_epochs_cut_the_schedule(epochs, left):
    assert [stage.epochs for stage in first_epochs(PAPER, epochs).stages] == left


def test_more_epochs_than_there_are_is_a_usage_error():
    for epochs in (0, 33):
        with pytest.raises(UsageError, match="expected 1 to the 32"):
            first_epochs(PAPER, epochs)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_written_schedule_is_the_same_schedule(name, tmp_path):
    path = write_schedule(tmp_path / "one.py", SCHEDULES[name], 'a note with """quotes""" and \\ in it')
    assert load_schedule(str(path)) == SCHEDULES[name]
    assert max(map(len, as_source(SCHEDULES[name], "x").splitlines())) < 400


@pytest.mark.slow
def test_search_end_to_end(packed, tmp_path, capsys):
    """Two real trials of three epochs; the best, its file, the plots, the sweep; then once more with one trial more."""
    out = tmp_path / "out"
    search(packed, out, "--trials", 2, "--json")
    result = json.loads(capsys.readouterr().out)
    trials = trials_in(out)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2 and result["trials"] == 2
    assert result["best"]["val_top1_err"] == min(trial.value for trial in trials)
    for number in (0, 1):  # judged by the centre crop after the third epoch, in which the second stage is under way
        log = (out / "trials" / f"000{number}" / "run" / "log.jsonl").read_text().splitlines()
        epochs = [record for record in map(json.loads, log) if record["event"] == "epoch"]
        assert [record["epoch_total"] for record in epochs] == [1, 2, 3]
        assert trials[number].value == epochs[-1]["val_top1_err"]
    best = load_schedule(result["schedule_file"])
    settings = [f"{name}={value}" for name, value in result["best"]["settings"].items()]
    assert best == replace(override(TINY, settings), name="tiny-searched") and best.epochs == TINY.epochs
    for picture in result["pictures"]:
        assert Path(picture).read_bytes().startswith(b"\x89PNG") and Path(picture).stat().st_size > 5000
    assert not list(out.glob("trials/*/run/*.safetensors"))


@pytest.mark.slow
def test_the_same_command_goes_on_and_draws_what_one_go_would(packed, tmp_path, trained):
    search(packed, tmp_path / "a", "--trials", 2)
    search(packed, tmp_path / "a", "--trials", 5)
    search(packed, tmp_path / "a", "--trials", 5)  # nothing left to do
    search(packed, tmp_path / "b", "--trials", 5)
    a, b = ([trial.params for trial in trials_in(tmp_path / name)] for name in "ab")
    assert a == b and len({params["optimizer.lr"] for params in a}) == 5 and len(trained.calls) == 10


@pytest.mark.slow
def test_another_search_in_the_folder_is_refused(packed, tmp_path, trained, capsys):
    search(packed, tmp_path / "a", "--trials", 1)
    search(packed, tmp_path / "a", "--trials", 2, "--epochs", 2, code=2)
    assert "epochs: 2 in the folder, 1 now" in capsys.readouterr().err


@pytest.mark.slow
def test_a_diverged_trial_is_not_the_end(packed, tmp_path, trained, capsys):
    kept = tmp_path / "a" / "trials" / "0000" / "run" / "checkpoints"
    trained.acts = {0: [kept.mkdir, *raising(Diverged("the training loss is nan"))], 1: raising(Diverged("again"))}
    search(packed, tmp_path / "a", "--trials", 3)
    assert [trial.state.name for trial in trials_in(tmp_path / "a")] == ["FAIL", "FAIL", "COMPLETE"]
    assert kept.parent.is_dir() and not kept.exists(), "no weights are kept"
    assert "2 did not train" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_said_which_stages_no_trial_came_to(packed, tmp_path, trained, capsys):
    search(packed, tmp_path / "a", "--trials", 1)
    sentence = "No trial came to conv1, all-14: what is best there was not asked."
    assert sentence in capsys.readouterr().out and sentence in (tmp_path / "a" / "best.py").read_text()
    search(packed, tmp_path / "b", "--trials", 1, "--epochs", 6)
    assert "No trial came to" not in capsys.readouterr().out


def test_where_every_stage_has_a_rate_there_is_none_to_search():
    with pytest.raises(UsageError, match="no optimizer.lr to search"):
        paper_space(replace(TINY, stages=tuple(replace(stage, lr=0.1) for stage in TINY.stages)))


@pytest.mark.slow
def test_the_rate_is_one_that_trials_use(packed, tmp_path, trained, capsys):
    """Three epochs of a schedule end in its second stage; that others use the schedule's rate does not help."""
    own = ["--set", "stages.0.lr=0.1", "stages.1.lr=0.1"]
    search(packed, tmp_path / "a", "--trials", 1, *own, code=2)
    assert "no optimizer.lr to search" in capsys.readouterr().err and trained.calls == []
    search(packed, tmp_path / "a", "--trials", 1, *own, "--epochs", 4)


@pytest.mark.slow
def test_all_trials_diverged_is_exit_5_and_a_fault_of_the_machine_ends_the_search(packed, tmp_path, trained, capsys):
    trained.acts = {k: raising(Diverged("nan")) for k in range(2)}
    search(packed, tmp_path / "a", "--trials", 2, code=5)
    assert "none of 2 trials" in capsys.readouterr().err
    trained.acts = {2: raising(MachineError("the disk is full"))}
    search(packed, tmp_path / "b", "--trials", 2, code=4)


@pytest.mark.slow
def test_tpe_and_bad_options(packed, tmp_path, trained, capsys):
    search(packed, tmp_path / "a", "--trials", 3, "--sampler", "tpe")
    search(packed, tmp_path / "b", "--trials", 0, code=2)
    search(packed, tmp_path / "b", "--seed", -1, code=2)
    assert "--seed -1: expected 0" in capsys.readouterr().err
    search(packed, tmp_path / "b", "--set", "optimizer.lrr=1", code=2)
    assert "did you mean 'lr'" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_without_optuna_the_remedy(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    search(packed, tmp_path / "a", code=4)
    assert "pip install 'fastres[search]'" in capsys.readouterr().err


@pytest.mark.slow
def test_sweep_file_is_the_same_space_and_its_command_is_one_of_ours(packed, tmp_path, trained, monkeypatch):
    """The command that W&B's own agent would build, run with a `python` that notes its arguments."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    search(packed, tmp_path / "a", "--trials", 7)
    sweep = yaml.safe_load((tmp_path / "a" / "sweep.yaml").read_text())
    space = paper_space(TINY)
    assert (sweep["run_cap"], sweep["method"]) == (7, "random")
    assert sweep["metric"] == {"name": "val/top1_err", "goal": "minimize"}
    assert set(sweep["parameters"]) == set(space)
    for name, drawn in sweep["parameters"].items():
        if isinstance(space[name], Choice):
            assert tuple(drawn["values"]) == space[name].values
        else:
            assert (drawn["min"], drawn["max"]) == pytest.approx((space[name].low, space[name].high))
            assert isinstance(drawn["min"], float) and ("log" in drawn["distribution"]) == space[name].log

    values = {
        "optimizer.lr": 1e-05,
        "optimizer.momentum": 0.85,
        "optimizer.weight_decay": 3e-4,
        "batch_size": 8,
        "views.jitter": 0.25,
    }
    words = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    command = []
    for word in utils.create_sweep_command(list(sweep["command"])):
        command += ["/usr/bin/env"] if word == "${env}" else words["args_no_hyphens"] if "args" in word else [word]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(command, env={"PATH": path, "WANDB_RUN_ID": "abc123"}, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert done.returncode == 0 and said[:2] == ["-m", "fastres.train"], done.stderr
    args = train_command.parser().parse_args(said[2:])
    assert args.run_dir == tmp_path / "a" / "sweep" / "abc123" and args.data == packed and args.wandb == "online"
    schedule = Options.of(args).schedule
    assert schedule.stages == first_epochs(TINY, 3).stages and schedule.views.saturation == 0.25
    assert (schedule.optimizer.lr, schedule.optimizer.momentum, schedule.batch_size) == (1e-05, 0.85, 8)


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", ["what?", "50%", "a#b", "c d"])
def test_a_folder_of_any_name_keeps_its_search(tmp_path, name):
    file = tmp_path / name / "search.db"
    file.parent.mkdir()
    for _ in range(2):
        study = optuna.create_study(storage=open_storage(file), study_name="search", load_if_exists=True)
        study.enqueue_trial({"x": 1})
    assert file.stat().st_size > 0 and len(study.get_trials()) == 2


def damaged(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)


def of_another_program(file: Path) -> None:
    with sqlite3.connect(file) as base:
        base.executescript("drop table trials; create table trials (what)")


def locked(file: Path) -> sqlite3.Connection:
    base = sqlite3.connect(file, isolation_level=None)
    base.execute("begin exclusive")
    return base


@pytest.mark.fault(44)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "code", "sentence"),
    [
        (damaged, 3, "is damaged or no search's file"),
        (lambda file: file.write_text("<html>"), 3, "is damaged or no search's file"),
        (of_another_program, 3, "is damaged or no search's file"),
        (locked, 4, "cannot be used (database is locked)"),
        (lambda file: [file.unlink(), file.mkdir()], 4, "cannot be used (unable to open database file)"),
    ],
    ids=["damaged", "not a database", "another program's", "locked", "a folder"],
)
def test_what_harms_a_searchs_file_is_said(packed, tmp_path, trained, capsys, monkeypatch, harm, code, sentence):
    monkeypatch.setattr(storage, "PATIENCE_S", 0.2)
    out = tmp_path / "out"
    search(packed, out, "--trials", 1)
    held = harm(out / "search.db")
    capsys.readouterr()
    search(packed, out, "--trials", 2, code=code)
    error = capsys.readouterr().err
    assert sentence in error and str(out / "search.db") in error and error.count("error:") == 1
    del held
