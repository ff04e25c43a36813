"""Doing the jobs, several at a time: each run is `python -m fastres.train` in a process of its own.

The study only watches: it reads the runs' logs for progress, hands a stop on, and goes on with the next one where a run
diverges or fails. What is done already, by the run's own summary, is not started. A run starts as soon as the stages
that it shares are there, also while the run that trains them goes on.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from fastres.data.manifest import load_manifest
from fastres.machine.device import choose_device, choose_precision
from fastres.machine.errors import Diverged, Preempted
from fastres.machine.processes.signals import StopRequest
from fastres.machine.processes.world import World
from fastres.study.jobs import Job
from fastres.study.search import tune
from fastres.study.search.tune import Rates
from fastres.study.training.launch import Launched, Start
from fastres.study.training.progress import Overall
from fastres.study.training.task import Outcome, Task, is_past, last_words, output_of, run_of, schedule_file
from fastres.track.run_config import read_object, refuse_different
from fastres.train.options import Options

POLL_S = 0.25
REMEDY = "remove this run folder, and the same command trains it again"


class Work:
    """All jobs of a study, and what came of those that are over."""

    def __init__(self, jobs: list[Job], options: Callable[..., Options], rates: Rates) -> None:
        """`options`: makes a run; data, device and the like, the same for all, are in it already.

        UsageError where a folder holds a run or a search of another configuration, before anything is trained: all but
        what waits for a rate that is not known yet.
        """
        self.jobs, self._options, self._rates = jobs, options, rates
        self.outcomes: dict[Path, Outcome] = {}
        self._no_rate: dict[str, Outcome] = {}  # by system: the searches that found none
        for job in jobs:
            state = self._state(job)
            if state:
                self.outcomes[job.folder] = Outcome(job, *state)

    def tasks(self) -> list[Task]:
        """What is to do, in order: every first seed's search before its run."""
        found = []
        for job in self.jobs:
            folder = self._rates.folder(job.system)
            if folder and job.seed == 0 and not (folder / "best.json").exists():
                found.append(Task(job, folder))
            if job.folder not in self.outcomes:
                found.append(Task(job))
        return found

    def next(self, waiting: list[Task]) -> Task | None:
        """The first task that has everything it starts from, or that has come to nothing already."""
        return next((task for task in waiting if self._ready(task) or self._in_vain(task)), None)

    def begin(self, task: Task, start: Start, threads: int | None) -> Launched | None:
        """Start it; None where it has come to nothing already, since a search that it needs found no rate."""
        job, output = task.job, output_of(task)
        if fault := self._in_vain(task):
            self.outcomes.setdefault(job.folder, Outcome(job, fault.code, fault.error))
            return None
        if task.search:
            run = run_of(job, self._rates.before(job), self._options)
            file = schedule_file(job, run.schedule, f"{job.system}, before its rate is searched.", ".search.py")
            own = ["--shared", str(job.shared), "--out", str(task.search)]
            arguments = [*own, *replace(run, run_dir=None, wandb=None).command_line(file)]
            return start(tune.__name__, arguments, output, threads)
        run = run_of(job, self._rates.schedule(job), self._options)
        file = schedule_file(job, run.schedule, f"{job.name} of the study in {job.folder.parent.parent}.")
        return start("fastres.train", run.command_line(file), output, threads)

    def end(self, task: Task, code: int) -> str:
        """Note how it ended, which is not with a stop; what to say of it."""
        error = "" if code == 0 else last_words(output_of(task), code)
        outcome = Outcome(task.job, code, error)
        if not task.search:
            self.outcomes[task.job.folder] = outcome
        elif code:
            self._no_rate[task.job.system] = outcome
            if code == Diverged.exit_code:
                self._rates.failed.add(task.job.system)
        return error

    def _ready(self, task: Task) -> bool:
        job, parent = task.job, task.job.parent
        if task.is_live:
            return False
        known = self._rates.before(job) if task.search else self._rates.schedule(job)
        return known is not None and (parent is None or parent.folder in self.outcomes or is_past(parent, job.shared))

    def _in_vain(self, task: Task) -> Outcome | None:
        """What became of a search that it needs: its own system's, or one for stages that it shares.

        Where a system diverges at every rate, those that share its stages go on at its schedule's rate.
        """
        if not task.search and task.job.system in self._no_rate:
            return self._no_rate[task.job.system]
        parent = task.job.parent
        while parent is not None:
            fault = self._no_rate.get(parent.system)
            if fault and parent.system not in self._rates.failed:
                return Outcome(task.job, fault.code, f"no rate was found for {parent.system}, whose stages it shares")
            parent = parent.parent
        return None

    def _state(self, job: Job) -> tuple[int, str] | None:
        """Exit code and sentence of a job that was done before; None where it is still to do."""
        schedule = self._rates.schedule(job)
        theirs = read_object(job.folder / "config.json", REMEDY)
        if theirs is None or schedule is None:
            return None
        run = run_of(job, schedule, self._options)
        world = World(choose_device(run.device))
        precision = choose_precision(run.precision, world.device)
        again = "choose another --out, or remove this folder to train it again"
        ours = run.config(load_manifest(run.data), precision, world)
        refuse_different(theirs, ours, f"{job.folder}: holds a run of another configuration; {again}")
        summary = read_object(job.folder / "summary.json", REMEDY) or {}
        if summary.get("status") == "diverged":  # the same run would diverge at the same step again
            return Diverged.exit_code, summary["error"]
        return (0, "") if summary.get("status") == "done" else None


def do_all(work: Work, start: Start, at_a_time: int = 1, threads: int | None = None) -> list[Outcome]:
    """Train what is not trained yet; outcomes in the order of the jobs. Preempted after a signal, when all runs have
    saved: the same command goes on."""
    waiting, running, stopped = work.tasks(), {}, ""
    with Overall(waiting, len(work.outcomes)) as overall, StopRequest() as stop, _none_left(running):
        while running or (waiting and not stopped):
            if stop.requested and not stopped:
                stopped = ", ".join(task.name for task in running) or "the study"
                for child in running.values():
                    child.stop()
            while not stopped and len(running) < at_a_time and (task := work.next(waiting)):
                waiting.remove(task)
                overall.begin(task)
                child = work.begin(task, start, threads)
                if child is None:
                    overall.end(task, work.outcomes[task.job.folder].error)
                else:
                    running[task] = child
            if waiting and not running and not stopped:
                leaving = [task.name for task in waiting if task.is_live]
                if not leaving:
                    raise RuntimeError(f"nothing can start of {', '.join(task.name for task in waiting)}")
                overall.wait_for(leaving)
                time.sleep(POLL_S)
            over = {task: code for task, child in running.items() if (code := child.poll()) is not None}
            for task, code in over.items():
                del running[task]
                if code == Preempted.exit_code and not stopped:  # somebody stopped the run itself: all stop
                    stopped = task.name
                    for child in running.values():
                        child.stop()
                if code == 0 or not stopped:  # one that was stopped before it could say so has not failed
                    overall.end(task, work.end(task, code))
            if running and not over:
                time.sleep(POLL_S)
                overall.look()
    if len(work.outcomes) < len(work.jobs):  # a signal that came when all was done stops nothing
        raise Preempted(f"stopped by a signal during {stopped or 'the study'}; the same command goes on there")
    return [work.outcomes[job.folder] for job in work.jobs]


@contextlib.contextmanager
def _none_left(running: dict[Task, Launched]) -> Iterator[None]:
    """Whatever happens inside: what runs is asked to leave, and waited for."""
    try:
        yield
    finally:
        for child in running.values():
            child.stop()
        while any(child.poll() is None for child in running.values()):
            time.sleep(POLL_S)
