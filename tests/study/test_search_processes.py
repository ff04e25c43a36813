"""The search's trials when processes are stopped, killed, or share them."""

import os
import re
import subprocess
import sys
from functools import partial

import pytest

from fastres.machine.errors import Diverged, Preempted
from fastres.schedules.loading import load_schedule
from fastres.study.search import trials as trials_module
from tests.conftest import TINY_FILE
from tests.support.search_runs import raising, search, trials_in

optuna = pytest.importorskip("optuna")


@pytest.mark.slow
def test_a_stopped_trial_is_taken_up_again_in_its_folder(packed, tmp_path, trained):
    trained.acts = {1: raising(Preempted("stopped"))}
    search(packed, tmp_path / "a", "--trials", 3, code=75)
    search(packed, tmp_path / "a", "--trials", 3)
    folders = [folder.parent.name for folder, _ in trained.calls]
    assert folders == ["0000", "0001", "0001", "0003"]
    assert trained.calls[1][1] == trained.calls[2][1], "the same settings, so its checkpoint fits"
    search(packed, tmp_path / "b", "--trials", 3)
    drawn = [schedule for _, schedule in trained.calls]
    assert drawn[4:] == [drawn[0], drawn[1], drawn[3]], "a stop changes no draw after it"


@pytest.mark.slow
def test_a_killed_process_blocks_nothing(packed, tmp_path, trained):
    """SIGKILL in the middle of a trial: the next process reruns it, and three trials end in all."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from fastres.train import command
from fastres.study.search.__main__ import main
command.fit = lambda options, world: os.kill(os.getpid(), signal.SIGKILL)
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
    words = [
        sys.executable,
        "-m",
        "fastres.study.search",
        "--schedule",
        str(TINY_FILE),
        "--data",
        str(packed),
        "--out",
        str(tmp_path / "a"),
        "--device",
        "cpu",
        "--trials",
        "4",
        "--set",
        "stages.1.epochs=1",
    ]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trials = trials_in(tmp_path / "a")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 4
    mine = [[int(n) for n in re.findall(r"trial (\d+): [\d.]+ % after", errors)] for _, errors in said]
    assert sorted(mine[0] + mine[1]) == [0, 1, 2, 3] and all(mine), "both took part"
    assert load_schedule(str(tmp_path / "a" / "best.py")).name == "tiny-searched"


@pytest.mark.slow
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


def test_a_trial_that_ends_while_we_look_is_not_taken_for_killed(packed, tmp_path, trained, monkeypatch):
    """Another process tells Optuna and gives the lock back between our look at what runs and our look at the lock."""
    search(packed, tmp_path, "--trials", 1)
    study = trials_module.library().load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'search.db'}")
    other, real = study.ask(), trials_module.Lock
    for name, value in {**trials_in(tmp_path)[0].user_attrs, "ended": "done"}.items():
        other.set_user_attr(name, value)

    def lock(path, wait=True):
        if not wait and path.parent.name == "0001":
            study.tell(other, 7.0)
        return real(path, wait)

    monkeypatch.setattr(trials_module, "Lock", lock)
    search(packed, tmp_path, "--trials", 3)
    trials = trials_in(tmp_path)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3 and trials[1].value == 7.0
    assert len(trained.calls) == 2, "the other process had trained one of the three"


def test_one_killed_between_its_end_and_optunas_note_is_tried_again(packed, tmp_path, trained):
    search(packed, tmp_path, "--trials", 1)
    study = trials_module.library().load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'search.db'}")
    study.ask(trials_in(tmp_path)[0].distributions).set_user_attr("ended", "done")
    search(packed, tmp_path, "--trials", 2)
    assert [trial.state.name for trial in trials_in(tmp_path)] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert [folder.parent.name for folder, _ in trained.calls] == ["0000", "0001"]


def test_who_comes_while_every_trial_runs_elsewhere_is_told_to_come_again(packed, tmp_path, trained, capsys):
    """Not that none of 0 trials trained."""
    trained.acts = {0: [lambda: search(packed, tmp_path, "--trials", 1, code=75)]}
    search(packed, tmp_path, "--trials", 1)
    assert "runs in another process" in capsys.readouterr().err
    assert (tmp_path / "best.py").is_file()
