"""Doing the jobs: each is `python -m fastres.train` in a process of its own, so one that fails takes nothing along.

The study only watches: it reads the run's log for progress, hands a stop on, and goes on with the next one where a run
diverges or fails. What is done already, by the run's own summary, is not started.
"""

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastres import train
from fastres.configuration import configuration
from fastres.data.manifest import load_manifest
from fastres.engine.precision import choose_device, choose_precision
from fastres.engine.signals import StopRequest
from fastres.engine.world import World
from fastres.errors import Diverged, MachineError, Preempted, UsageError
from fastres.study.jobs import Job
from fastres.study.progress import Overall
from fastres.track.log import read_log
from fastres.track.run_dir import differences, read_object

POLL_S = 0.5
SHOWN_LINES = 4  # of a failed run's output
PR_SET_PDEATHSIG = 1  # prctl(2)
REMEDY = "remove this run folder, and the same command trains it again"

Launch = Callable[[list[str], Path, Callable[[], None]], int]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: train's exit code, and its sentence where that is not 0."""

    job: Job
    code: int
    error: str = ""


def command_of(job: Job, options: list[str]) -> list[str]:
    """train's command line. `options`: --data, --device and the like, the same for all jobs."""
    start = ["--start-from", str(job.parent.folder)] if job.parent and _has_stage(job.parent.folder, job.shared) else []
    return [
        "--schedule", str(schedule_file(job)), "--run-dir", str(job.folder), "--seed", str(job.seed), "--wandb", "off",
        *options, *start,
    ]  # fmt: skip


def schedule_file(job: Job) -> Path:
    """Where the job's schedule lies, beside all run folders."""
    return job.folder.parent.parent / "schedules" / f"{job.schedule.name}.py"


def do_all(jobs: list[Job], options: list[str], launch: Launch) -> list[Outcome]:
    """Train what is not trained yet. Preempted after a signal: the same command goes on.

    UsageError, before anything is trained, where a folder holds a run of another configuration.
    """
    states = {job.folder: state_of(job, options) for job in jobs}
    outcomes = [Outcome(job, *states[job.folder]) for job in jobs if states[job.folder]]
    todo = [job for job in jobs if not states[job.folder]]
    with Overall(todo, len(outcomes)) as overall:
        for job in todo:
            overall.begin(job)
            output = job.folder.parent / f"{job.folder.name}.txt"
            output.parent.mkdir(parents=True, exist_ok=True)
            code = launch(command_of(job, options), output, lambda job=job: overall.at(_epochs_done(job)))
            if code == Preempted.exit_code:
                raise Preempted(f"stopped by a signal during {job.name}; the same command goes on there")
            outcome = Outcome(job, code, "" if code == 0 else _last_words(output, code))
            outcomes.append(outcome)
            overall.end(outcome)
    return outcomes


def state_of(job: Job, options: list[str]) -> tuple[int, str] | None:
    """Exit code and sentence of a job that was done before; None where it is still to do."""
    args = train.parser().parse_args(command_of(job, options))
    world = World(choose_device(args.device))
    precision = choose_precision(args.precision, world.device)
    ours = json.loads(json.dumps(configuration(args, job.schedule, load_manifest(args.data), precision, world)))
    theirs = read_object(job.folder / "config.json", REMEDY)
    if theirs is None:
        return None
    if different := differences(theirs, ours):
        raise UsageError(
            f"{job.folder}: holds a run of another configuration; choose another --out, or remove this folder to train "
            "it again:\n  " + "\n  ".join(different[:12])
        )
    summary = read_object(job.folder / "summary.json", REMEDY) or {}
    if summary.get("status") == "diverged":  # the same run would diverge at the same step again
        return Diverged.exit_code, summary["error"]
    return (0, "") if summary.get("status") == "done" else None


def subprocess_launch(arguments: list[str], output: Path, tick: Callable[[], None]) -> int:
    """train in a process of its own; its screen goes to the file `output`. Returns its exit code.

    The child is in its own session, so that Ctrl-C reaches it once, through us; if we die it is asked to stop.
    """
    command = [sys.executable, "-m", "fastres.train", *arguments]
    libc = ctypes.CDLL(None)
    with open(output, "wb") as file, StopRequest() as stop:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )  # fmt: skip
        asked = False
        while child.poll() is None:
            if stop.requested and not asked:
                child.send_signal(signal.SIGTERM)
                asked = True
            time.sleep(POLL_S)
            tick()
    if stop.requested:  # also where the run came to its end before it saw the signal
        return Preempted.exit_code
    return MachineError.exit_code if child.returncode < 0 else child.returncode


def _has_stage(folder: Path, shared: int) -> bool:
    return (folder / "stages" / f"{shared - 1}.safetensors").exists()


def _epochs_done(job: Job) -> list[int]:
    """Epochs logged so far of every stage."""
    records = [record for record in read_log(job.folder / "log.jsonl") if record["event"] == "epoch"]
    return [sum(record["stage"] == index for record in records) for index in range(len(job.schedule.stages))]


def _last_words(output: Path, code: int) -> str:
    said = output.read_text(errors="replace") if output.exists() else ""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else " / ".join([f"exit code {code}", *lines[-SHOWN_LINES:]])
