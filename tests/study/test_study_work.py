"""How the study does its jobs: side by side, with one progress over all, stopped and failed."""

import json
import time
from pathlib import Path

import pytest

from fastres.machine.errors import DataError, Preempted, UsageError
from fastres.schedules import PAPER, SCHEDULES
from fastres.study.jobs import Job, plan
from fastres.study.search import tune
from fastres.study.search.tune import Rates
from fastres.study.training import launch, progress, work
from fastres.study.training.task import Task
from fastres.train.options import Options


def test_time_left_follows_the_arithmetic(monkeypatch, tmp_path, capsys):
    """Two runs of cost 3 and 1: after the first, which took 30 s, 10 s are left."""
    now, part = [0.0], {}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(work.Task, "part", lambda self: part.get(self, 0.0))
    long, short = (Task(Job(PAPER, seed, tmp_path, None, 0, cost)) for seed, cost in ((0, 3.0), (1, 1.0)))
    with progress.Overall([long, short], 2) as overall:
        overall.begin(long)
        now[0], part[long] = 15.0, 0.5
        overall.look()
        assert overall.time_left(0.5 * 3 / 4) == "about 25 s left"
        now[0] = 30.0
        overall.end(long, "")
        overall.begin(short)
        now[0] = 300.0
        overall.end(short, "the training loss is nan")
    said = capsys.readouterr().err
    assert "2 of 4 jobs are done already" in said
    assert "[3/4] paper, seed 0: done (30 s); about 10 s left" in said
    assert "[4/4] paper, seed 1: the training loss is nan (270 s); about 0 s left" in said


def test_progress_of_a_task_is_what_its_files_say(tmp_path):
    stage = PAPER.stages[0]
    job = Job(PAPER, 0, tmp_path / "runs" / "paper-s0", None, 1, 3.0, 1.0)
    run, search = Task(job), Task(job, tmp_path / "tune" / "paper")
    assert run.part() == search.part() == 0.0 and (run.cost, search.cost) == (3.0, 4.0)
    (tmp_path / "tune" / "paper" / "trials" / "0000" / "run").mkdir(parents=True)
    (tmp_path / "tune" / "paper" / "trials" / "0000" / "run" / "summary.json").write_text("{}")
    assert search.part() == pytest.approx(1 / 4)
    job.folder.mkdir(parents=True)
    epochs = [{"event": "epoch", "stage": 0}] * stage.epochs + [{"event": "epoch", "stage": 1}] * 9
    (job.folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs))
    assert run.part() == pytest.approx(9 / 27), "of the stages that are its own"
    with progress.Overall([run, search], 0) as overall:
        assert overall.time_left(0) == "time left not known yet"
        overall.begin(search)
        overall.end(search, "")
        assert overall._done / overall._total == pytest.approx(3 / 5), "what was done before does not count as done now"


class Slow:
    """A run that ends when it is told to."""

    def __init__(self, name: str) -> None:
        self.name, self.code, self.stopped = name, None, False

    def poll(self):
        return self.code

    def stop(self) -> None:
        self.stopped, self.code = True, 75


def test_runs_go_side_by_side_as_soon_as_what_they_share_is_there(tmp_path, monkeypatch):
    """Two at a time. The second system waits for its parent's shared stage, not for its end, and not for a third."""
    schedules = [SCHEDULES[name] for name in ("naive-fc", "initialized-fc", "paper", "conv1-naive")]
    flop = {schedule.name: [1] * len(schedule.stages) for schedule in schedules}
    jobs = plan(schedules, 1, tmp_path / "runs", flop, images=10)
    started, at, folder = [], [], tmp_path / "runs" / "initialized-fc-s0" / "checkpoints"

    def begin(module, arguments, output, threads):
        assert threads == 1
        started.append(Slow(Path(arguments[arguments.index("--run-dir") + 1]).name))
        return started[-1]

    def tick(_):
        """What happens between two looks."""
        at.append([child.name for child in started if child.code is None])
        assert len(at[-1]) <= 2
        if len(at) == 1:
            started[0].code = 0  # naive-fc
        elif len(at) == 3:  # its shared stages are over, but a kill would throw it back to before their end
            (tmp_path / "runs" / "initialized-fc-s0" / "stages").mkdir(parents=True)
            (tmp_path / "runs" / "initialized-fc-s0" / "stages" / "1.safetensors").touch()
            folder.mkdir()
            (folder / f"stage1-epoch9-step0-err40.00-{'0' * 16}.pt").touch()
        elif len(at) == 4:
            (folder / f"stage2-epoch0-step0-err39.00-{'0' * 16}.pt").touch()
        elif len(at) > 5:
            next(child for child in started if child.code is None).code = 0

    monkeypatch.setattr(work.time, "sleep", tick)
    done = work.do_all(work.Work(jobs, Options, Rates(None)), begin, at_a_time=2, threads=1)
    assert [outcome.code for outcome in done] == [0] * 4
    assert at[0] == ["naive-fc-s0", "initialized-fc-s0"] and at[1] == at[2] == at[3] == ["initialized-fc-s0"]
    assert at[4] == ["initialized-fc-s0", "conv1-naive-s0"], "while the one that it starts from goes on"


def test_a_run_that_was_stopped_stops_them_all(tmp_path, monkeypatch):
    schedules = [SCHEDULES[name] for name in ("naive-fc", "feature-extractor", "from-scratch")]
    jobs = plan(schedules, 1, tmp_path / "runs", {s.name: [1] for s in schedules}, images=10)
    started = []

    def begin(module, arguments, output, threads):
        started.append(Slow(output.stem))
        return started[-1]

    monkeypatch.setattr(work.time, "sleep", lambda _: setattr(started[0], "code", 75))
    with pytest.raises(Preempted, match="during naive-fc, seed 0"):
        work.do_all(work.Work(jobs, Options, Rates(None)), begin, at_a_time=2)
    assert [child.name for child in started] == ["naive-fc-s0", "feature-extractor-s0"] and started[1].stopped


@pytest.fixture
def fake_python(tmp_path, monkeypatch):
    """A program in place of Python; what it does is the script given."""

    def make(script: str) -> None:
        (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(launch.sys, "executable", str(tmp_path / "python"))

    return make


def wait_for(child: launch.Child) -> int:
    while (code := child.poll()) is None:
        time.sleep(0.01)
    return code


def test_launcher_reports_a_killed_child_as_the_machines_fault(tmp_path, fake_python):
    fake_python("echo started $2 $3 on $OMP_NUM_THREADS\nkill -9 $$")
    assert wait_for(launch.Child("some.module", ["--help"], tmp_path / "said.txt", 3)) == 4
    assert (tmp_path / "said.txt").read_text() == "started some.module --help on 3\n"


def test_a_stop_counts_even_where_the_run_ends_well(tmp_path, fake_python):
    """The child gets the signal and ends with 0 all the same: the study must not start the next run."""
    fake_python("trap 'exit 0' TERM\nkill -TERM $PPID\nwhile :; do sleep 0.1; done")
    jobs = plan(
        [SCHEDULES["naive-fc"], SCHEDULES["from-scratch"]],
        1,
        tmp_path / "runs",
        {"naive-fc": [1], "from-scratch": [1]},
        images=10,
    )
    with pytest.raises(Preempted):
        work.do_all(work.Work(jobs, Options, Rates(None)), launch.Child)
    assert [file.name for file in (tmp_path / "output").iterdir()] == ["naive-fc-s0.txt"]


def test_whatever_goes_wrong_in_the_study_leaves_no_run_behind(tmp_path, monkeypatch):
    jobs = plan([SCHEDULES["naive-fc"]], 1, tmp_path / "runs", {"naive-fc": [1]}, images=10)
    child = Slow("naive-fc")

    def broken(self):
        raise DataError("its log is damaged")

    with progress.Overall([], 0), pytest.raises(DataError):
        monkeypatch.setattr(progress.Overall, "look", broken)
        monkeypatch.setattr(progress.Overall, "begin", lambda self, task: None)
        work.do_all(work.Work(jobs, Options, Rates(None)), lambda *_: child)
    assert child.stopped and child.poll() is not None


@pytest.mark.parametrize("code", [4, 5])
def test_a_search_that_finds_no_rate_and_what_shares_its_stages(tmp_path, monkeypatch, code):
    """Where it diverges at every rate, those that share its stages go on at its schedule's; where it failed otherwise,
    they wait for another day: at any other rate they would be searched, and trained, from other stages than theirs."""
    schedules = [SCHEDULES[name] for name in ("naive-fc", "initialized-fc", "paper")]
    jobs = plan(schedules, 2, tmp_path / "runs", {s.name: [1] * len(s.stages) for s in schedules}, images=10)
    rates, started = Rates(tmp_path / "tune"), []

    def begin(module, arguments, output, threads):
        started.append(output.stem)
        child = Slow(output.stem)
        child.code = code if output.stem == "initialized-fc-rate" else 0
        if output.stem.endswith("-rate") and child.code == 0:
            job = next(job for job in jobs if f"{job.system}-rate" == output.stem)
            config = tune._config(tune.brief(rates.before(job), job.shared), job.shared, {})
            (tmp_path / "tune" / job.system).mkdir(parents=True)
            found = {"factor": 3.0, "config": config}
            (tmp_path / "tune" / job.system / "best.json").write_text(json.dumps(found))
        return child

    done = {outcome.job.name: outcome for outcome in work.do_all(work.Work(jobs, Options, rates), begin)}
    codes = {name: outcome.code for name, outcome in done.items()}
    assert codes["naive-fc, seed 0"] == codes["naive-fc, seed 1"] == 0
    assert codes["initialized-fc, seed 0"] == codes["initialized-fc, seed 1"] == code
    before = ["naive-fc-rate", "naive-fc-s0", "initialized-fc-rate"]
    if code == 4:
        assert started == [*before, "naive-fc-s1"]
        assert done["paper, seed 1"].code == 4
        assert done["paper, seed 0"].error == "no rate was found for initialized-fc, whose stages it shares"
    else:
        assert started == [*before, "paper-rate", "paper-s0", "naive-fc-s1", "paper-s1"]
        assert done["paper, seed 1"].code == 0
    again = work.Work(jobs, Options, Rates(tmp_path / "tune"))
    assert [task.name for task in again.tasks()][:2] == ["naive-fc, seed 0", "rate of initialized-fc"], "tried again"


def test_a_rate_found_for_another_configuration_is_refused(tmp_path):
    """The child's search was made from other shared stages than its parent has now."""
    schedules = [SCHEDULES[name] for name in ("initialized-fc", "paper")]
    jobs = plan(schedules, 1, tmp_path / "runs", {s.name: [1] * len(s.stages) for s in schedules}, images=10)
    rates = Rates(tmp_path / "tune", {"device": "cpu"})

    def found(job, factor, where):
        config = tune._config(tune.brief(rates.before(job), job.shared), job.shared, where)
        (tmp_path / "tune" / job.system).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tune" / job.system / "best.json").write_text(json.dumps({"factor": factor, "config": config}))

    found(jobs[0], 3.0, {"device": "cpu"})
    found(jobs[1], 1.0, {"device": "cpu"})
    assert rates.schedule(jobs[1]).stages[0].lr == pytest.approx(0.03)
    assert rates.schedule(jobs[1]).stages[3].lr == pytest.approx(0.01)
    found(jobs[0], 1.0, {"device": "cpu"})
    with pytest.raises(UsageError, match=r"tune/paper: holds another search.*\n.*stages.0.lr"):
        rates.schedule(jobs[1])
    found(jobs[1], 1.0, {"device": "cuda"})
    with pytest.raises(UsageError, match='device: "cuda" in the folder, "cpu" now'):
        rates.schedule(jobs[1])
