"""The randomized search: its space, its trials through kills and processes, and what it leaves."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from fastres import train
from fastres.errors import Diverged, MachineError, Preempted, UsageError, run_command
from fastres.schedule_file import as_source, write_schedule
from fastres.schedule_loading import load_schedule, override
from fastres.schedules import DEMO, PAPER, SCHEDULES
from fastres.search import __main__ as search_module
from fastres.search.space import Choice, apply, first_epochs, paper_space
from fastres.search.trials import library
from tests.conftest import TINY, TINY_FILE

optuna = pytest.importorskip("optuna")


def search(packed, out, *extra, code=0):
    """The command in this process; `out` is its folder."""
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--out", str(out), "--device", "cpu"]
    assert run_command(lambda: search_module.main([*arguments, *map(str, extra)])) == code


def trials_in(out):
    library()
    return optuna.load_study(study_name="search", storage=f"sqlite:///{out / 'search.db'}").trials


@pytest.fixture
def trained(monkeypatch):
    """train.main replaced by arithmetic: the error is what the settings say; what raises is chosen by the test."""
    calls = []

    def fake(argv):
        args = train.parser().parse_args(argv)
        schedule = train.resolve(args)
        calls.append((args.run_dir, schedule))
        args.run_dir.mkdir(exist_ok=True)
        for act in fake.acts.pop(len(calls) - 1, ()):
            act()
        error = 1000 * abs(schedule.optimizer.lr - 0.05)
        summary = {"stages": [{"val_top1_err": error}], "train_s": 1.0, "count": 400}
        (args.run_dir / "summary.json").write_text(json.dumps(summary))
        return 0

    fake.calls, fake.acts = calls, {}
    monkeypatch.setattr(train, "main", fake)
    monkeypatch.setattr(search_module.results, "draw", lambda study, folder: [])
    return fake


def raising(error):
    def act():
        raise error

    return [act]


def test_space_is_around_the_schedule_and_draws_stay_inside():
    space = paper_space(PAPER)
    assert (space["optimizer.lr"].low, space["optimizer.lr"].high) == pytest.approx((0.001, 0.1))
    assert space["batch_size"] == Choice((64, 128, 256, 512)) and paper_space(DEMO)["batch_size"].values[0] == 8
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(50):
        trial = study.ask()
        settings = {name: kind.suggest(trial, name) for name, kind in space.items()}
        changed = apply(PAPER, settings)  # every draw is a valid schedule
        assert 0.001 <= changed.optimizer.lr <= 0.1 and changed.batch_size in (64, 128, 256, 512)
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


def test_the_same_command_goes_on_and_draws_what_one_go_would(packed, tmp_path, trained):
    search(packed, tmp_path / "a", "--trials", 2)
    search(packed, tmp_path / "a", "--trials", 5)
    search(packed, tmp_path / "a", "--trials", 5)  # nothing left to do
    search(packed, tmp_path / "b", "--trials", 5)
    a, b = ([trial.params for trial in trials_in(tmp_path / name)] for name in "ab")
    assert a == b and len({params["optimizer.lr"] for params in a}) == 5 and len(trained.calls) == 10


def test_another_search_in_the_folder_is_refused(packed, tmp_path, trained, capsys):
    search(packed, tmp_path / "a", "--trials", 1)
    search(packed, tmp_path / "a", "--trials", 2, "--epochs", 2, code=2)
    assert "epochs: 2 in the folder, 1 now" in capsys.readouterr().err


def test_a_diverged_trial_is_not_the_end(packed, tmp_path, trained, capsys):
    trained.acts = {0: raising(Diverged("the training loss is nan")), 1: raising(Diverged("again"))}
    search(packed, tmp_path / "a", "--trials", 3)
    assert [trial.state.name for trial in trials_in(tmp_path / "a")] == ["FAIL", "FAIL", "COMPLETE"]
    assert "2 did not train" in capsys.readouterr().out


def test_all_trials_diverged_is_exit_5_and_a_fault_of_the_machine_ends_the_search(packed, tmp_path, trained, capsys):
    trained.acts = {k: raising(Diverged("nan")) for k in range(2)}
    search(packed, tmp_path / "a", "--trials", 2, code=5)
    assert "none of 2 trials" in capsys.readouterr().err
    trained.acts = {2: raising(MachineError("the disk is full"))}
    search(packed, tmp_path / "b", "--trials", 2, code=4)


def test_a_stopped_trial_is_taken_up_again_in_its_folder(packed, tmp_path, trained):
    trained.acts = {1: raising(Preempted("stopped"))}
    search(packed, tmp_path / "a", "--trials", 3, code=75)
    search(packed, tmp_path / "a", "--trials", 3)
    folders = [folder.parent.name for folder, _ in trained.calls]
    assert folders == ["0000", "0001", "0001", "0003"]
    assert trained.calls[1][1] == trained.calls[2][1], "the same settings, so its checkpoint fits"


@pytest.mark.slow
def test_a_killed_process_blocks_nothing(packed, tmp_path, trained):
    """SIGKILL in the middle of a trial: the next process reruns it, and three trials end in all."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from fastres import train
from fastres.search.__main__ import main
train.main = lambda argv: os.kill(os.getpid(), signal.SIGKILL)
main(["--schedule", {str(TINY_FILE)!r}, "--data", {str(packed)!r}, "--out", {str(tmp_path / "a")!r}, "--trials", "3",
      "--device", "cpu"])
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert [trial.state.name for trial in trials_in(tmp_path / "a")] == ["RUNNING"]
    search(packed, tmp_path / "a", "--trials", 3)
    assert [trial.state.name for trial in trials_in(tmp_path / "a")] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [folder.parent.name for folder, _ in trained.calls] == ["0000", "0002", "0003"]


def test_two_at_once_share_the_trials(packed, tmp_path, trained):
    """While the first process trains its first trial, another does the rest: no trial twice, none too many."""
    out = tmp_path / "a"
    trained.acts = {0: [lambda: search(packed, out, "--trials", 4)]}
    search(packed, out, "--trials", 4)
    trials = trials_in(out)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4 and len(trained.calls) == 4
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 4


@pytest.mark.slow
def test_two_processes_share_one_search(packed, tmp_path):
    """The command twice at once, training for real: every trial done once, none too many, one best schedule."""
    words = [sys.executable, "-m", "fastres.search", "--schedule", str(TINY_FILE), "--data", str(packed), "--out",
             str(tmp_path / "a"), "--device", "cpu", "--trials", "4", "--set", "stages.1.epochs=1"]  # fmt: skip
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trials = trials_in(tmp_path / "a")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 4
    mine = [[int(n) for n in re.findall(r"trial (\d+): [\d.]+ % after", errors)] for _, errors in said]
    assert sorted(mine[0] + mine[1]) == [0, 1, 2, 3] and all(mine), "both took part"
    assert load_schedule(str(tmp_path / "a" / "best.py")).name == "tiny-searched"


@pytest.mark.parametrize("fault,state", [(None, "COMPLETE"), (Diverged("the loss is nan"), "FAIL")])
def test_a_trial_that_has_just_ended_is_not_taken_for_killed(packed, tmp_path, trained, monkeypatch, fault, state):
    """Another process comes between its end and Optuna's note of it."""
    real, between = optuna.study.Study.optimize, [lambda: search(packed, tmp_path, "--trials", 4)]
    def watched(objective, trial):
        try:
            return objective(trial)
        finally:
            (between.pop() if between else int)()
    monkeypatch.setattr(optuna.study.Study, "optimize", lambda s, f, **k: real(s, partial(watched, f), **k))
    trained.acts |= {0: raising(fault)} if fault else {}
    search(packed, tmp_path, "--trials", 4)
    assert [trial.state.name for trial in trials_in(tmp_path)] == [state] + ["COMPLETE"] * 3


def test_tpe_and_bad_options(packed, tmp_path, trained, capsys):
    search(packed, tmp_path / "a", "--trials", 3, "--sampler", "tpe")
    search(packed, tmp_path / "b", "--trials", 0, code=2)
    search(packed, tmp_path / "b", "--set", "optimizer.lrr=1", code=2)
    assert "did you mean 'lr'" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_without_optuna_the_remedy(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    search(packed, tmp_path / "a", code=4)
    assert "pip install 'optuna" in capsys.readouterr().err


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

    values = {"optimizer.lr": 1e-05, "optimizer.momentum": 0.85, "optimizer.weight_decay": 3e-4, "batch_size": 8,
              "views.jitter": 0.25}  # fmt: skip
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
    args = train.parser().parse_args(said[2:])
    assert args.run_dir == tmp_path / "a" / "sweep" / "abc123" and args.data == packed and args.wandb == "online"
    schedule = train.resolve(args)
    assert schedule.stages == first_epochs(TINY, 3).stages and schedule.views.saturation == 0.25
    assert (schedule.optimizer.lr, schedule.optimizer.momentum, schedule.batch_size) == (1e-05, 0.85, 8)
