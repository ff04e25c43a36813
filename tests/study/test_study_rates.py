"""The study's search for each system's learning rate: what it tries, chooses, says and survives."""

import json
import re
import sys
from dataclasses import replace

import pytest

from fastres.machine.errors import Preempted
from fastres.study import __main__ as study_module
from fastres.study.search.tune import Rates
from fastres.train import command as train_command
from tests.support.study_runs import INITIALIZED, NAIVE, PAPER, result_of, study

CHAIN = (*NAIVE.stages, replace(PAPER.stages[2], epochs=2))


@pytest.mark.slow
def test_tune_chooses_the_rate_of_each_systems_own_stages(packed, launch, tmp_path):
    """Four rates, one epoch of every stage each; the system is then trained at the best, and the report says so. What
    it shares is trained once, at the rate found for the system that it shares it with, and a trial starts from there.
    """
    pytest.importorskip("optuna")
    out, schedules = tmp_path / "out", (replace(INITIALIZED, stages=NAIVE.stages), replace(PAPER, stages=CHAIN))
    study(packed, tmp_path, "--tune", "--seeds", 2, schedules=schedules)
    assert [call[call.index("--shared") + 1] for call in launch.searches] == ["0", "1"]
    trained = {
        name: json.loads((out / "runs" / f"{name}-s1" / "config.json").read_text())["schedule"]["stages"]
        for name in ("initialized-fc", "paper")
    }
    (note,) = [note for note in result_of(out)["notes"] if note.startswith("each system's own stages")]
    for name, first in (("initialized-fc", 0), ("paper", 1)):
        runs = sorted((out / "tune" / name / "trials").glob("*/run"))
        tried = [json.loads((run / "config.json").read_text())["schedule"]["stages"] for run in runs]
        errors = [json.loads((run / "summary.json").read_text())["stages"][-1]["val_top1_err"] for run in runs]
        assert len(runs) == 4 and all(
            [s["epochs"] for s in stages[first:]] == [1] * (len(stages) - first) for stages in tried
        )
        assert all(stages[:first] == trained["initialized-fc"][:first] for stages in tried)
        rates = {stages[-1]["lr"]: error for stages, error in zip(tried, errors, strict=True)}
        assert sorted(rates) == pytest.approx([0.005 / 9, 0.005 / 3, 0.005, 0.015])
        assert rates[trained[name][-1]["lr"]] == min(errors)
        factor = trained[name][-1]["lr"] / 0.005
        assert trained[name][first]["epochs"] == 2 and re.search(rf"times {factor:.2g} for [^;]*{name}", note)
    runs = map(str, (out / "runs").iterdir())
    redrawn = ["--figures", *runs, "--out", str(tmp_path / "redrawn"), "--data", str(packed)]
    assert study_module.main(redrawn) == 0
    assert note in result_of(tmp_path / "redrawn")["notes"], "redrawn, it is said too"
    assert launch.names() == [f"{name}-s{seed}" for seed in (0, 1) for name in ("initialized-fc", "paper")]
    assert all(run["taken_over_stages"] == (run["system"] == "paper") for run in result_of(out)["runs"])


@pytest.mark.slow
def test_a_system_that_no_rate_trains_is_said_and_is_not_tried_again_by_every_seed(packed, launch, tmp_path, capsys):
    pytest.importorskip("optuna")
    wild = replace(NAIVE, optimizer=replace(NAIVE.optimizer, lr=1e30))
    study(packed, tmp_path, "--tune", "--seeds", 2, schedules=(wild, INITIALIZED))
    assert launch.names() == ["initialized-fc-s0", "initialized-fc-s1"] and len(launch.searches) == 2
    said = capsys.readouterr().out
    assert "naive-fc, seed 0; naive-fc, seed 1: none of 4 trials" in said
    study(packed, tmp_path / "alone", "--tune", schedules=(wild,), code=5)
    assert "error: no run was trained: naive-fc, seed 0: none of 4 trials" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_of_another_configuration_is_refused(packed, launch, tmp_path, capsys):
    pytest.importorskip("optuna")
    study(packed, tmp_path, "--tune", schedules=(NAIVE,))
    study(packed, tmp_path, "--tune", "--set", "optimizer.momentum=0.8", schedules=(NAIVE,), code=2)
    assert "holds another search" in capsys.readouterr().err and len(launch.calls) == len(launch.searches) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_search_that_is_stopped_goes_on_with_the_trial_it_was_in(packed, launch, tmp_path, monkeypatch, number):
    """Each of its four trials in turn: all four rates are tried in the end, each once."""
    pytest.importorskip("optuna")
    original, stopped = train_command.fit, []

    def stopping(options, world):
        if len(stopped) == number:
            stopped.append("now")
            raise Preempted("stopped by a signal")
        if options.no_evaluation:
            stopped.append("trained")
        return original(options, world)

    monkeypatch.setattr(train_command, "fit", stopping)
    study(packed, tmp_path, "--tune", schedules=(NAIVE,), code=75)
    assert launch.calls == [] and stopped == ["trained"] * number + ["now"]
    study(packed, tmp_path, "--tune", schedules=(NAIVE,))
    logs = (tmp_path / "out" / "tune" / "naive-fc" / "trials").glob("*/run/config.json")
    rates = [json.loads(file.read_text())["schedule"]["stages"][0]["lr"] for file in logs]
    assert sorted(rates) == pytest.approx([0.005 / 9, 0.005 / 3, 0.005, 0.015]) and stopped.count("trained") == 4


def test_rates_are_told_as_they_were_searched(tmp_path):
    """Also by a later version that tries others; and what lies at the edge of what was tried is named."""
    three = (0.5, 1.0, 2.0)
    for name, factor, factors in (("a-small", 0.5, (0.5, 1.0)), ("b", 1.0, three), ("c", 2.0, three)):
        (tmp_path / name).mkdir()
        found = {"factor": factor, "config": {"factors": factors}}
        (tmp_path / name / "best.json").write_text(json.dumps(found))
    first, second = Rates(tmp_path).note(["a-small", "b", "c", "none"])
    assert "best rate of 2," in first and "times 0.5 for a (a rate beyond those tried may be better for a)" in first
    assert "at 0.5, 1, 2 times" in second and second.endswith(
        "times 1 for b; times 2 for c (a rate beyond those tried may be better for c)"
    )


def test_without_optuna_the_remedy_comes_before_anything_is_packed(packed, tmp_path, launch, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    study(packed, tmp_path, "--tune", schedules=(NAIVE,), code=4)
    assert "pip install 'fastres[search]'" in capsys.readouterr().err
    assert launch.searches == [] and not (tmp_path / "out").exists()
