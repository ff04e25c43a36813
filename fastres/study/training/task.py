"""One thing that the study has to do: a run, or the search for its rate; its command line, its files, its progress."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastres.schedules.types import Schedule
from fastres.schedules.writing import write_schedule
from fastres.study.jobs import Job
from fastres.study.search.tune import FACTORS
from fastres.track.log import read_log
from fastres.track.run_dir import live_process
from fastres.train.checkpoint import Position, checkpoints_in
from fastres.train.options import Options
from fastres.train.stage_ends import stage_end

SHOWN_LINES = 4  # of a failed run's output


@dataclass(frozen=True)
class Outcome:
    """How a job ended: train's exit code, and its sentence where that is not 0."""

    job: Job
    code: int
    error: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """A job's run; or, before that, the search for its rate, in the folder `search`."""

    job: Job
    search: Path | None = None

    @property
    def name(self) -> str:
        return f"rate of {self.job.system}" if self.search else self.job.name

    @property
    def is_live(self) -> bool:
        """Whether a process is at its run that is not ours: one of a study that was killed, which still saves."""
        return not self.search and live_process(self.job.folder) is not None

    @property
    def cost(self) -> float:
        return len(FACTORS) * self.job.brief if self.search else self.job.cost

    def part(self) -> float:
        """How much of it is done, from 0 to 1: what its own files say."""
        if self.search:
            return len(list(self.search.glob("trials/*/run/summary.json"))) / len(FACTORS)
        own = sum(stage.epochs for stage in self.job.schedule.stages[self.job.shared :])
        records = read_log(self.job.folder / "log.jsonl")
        mine = sum(record["event"] == "epoch" and record["stage"] >= self.job.shared for record in records)
        return min(1.0, mine / max(1, own))


def run_of(job: Job, schedule: Schedule, options: Callable[..., Options]) -> Options:
    """The job's run; from where the stages that it shares are trained, if they are."""
    parent = job.parent
    ready = parent is not None and _has_ended(parent, job.shared)
    return options(
        schedule=schedule,
        run_dir=job.folder,
        seed=job.seed,
        wandb="off",
        start_from=parent.folder if ready else None,
    )


def schedule_file(job: Job, schedule: Schedule, note: str, ending: str = ".py") -> Path:
    """`schedule` as the job's file, beside all run folders."""
    path = job.folder.parent.parent / "schedules" / f"{job.folder.name}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_schedule(path, schedule, note)


def output_of(task: Task) -> Path:
    """Where it says what it would say on a terminal; beside the folder of the runs, which holds nothing else."""
    folder = task.job.folder
    return folder.parent.parent / "output" / (f"{task.job.system}-rate.txt" if task.search else f"{folder.name}.txt")


def is_past(parent: Job, shared: int) -> bool:
    """Whether a run that may go on has ended those stages for good: a checkpoint behind them is on the disk, so that
    however it is killed its log is not cut back to before them while another run reads it."""
    folder = parent.folder / "checkpoints"
    saved = checkpoints_in(folder) if folder.is_dir() else []
    return _has_ended(parent, shared) and any(one.position >= Position(shared) for one in saved)


def _has_ended(parent: Job, shared: int) -> bool:
    return stage_end(parent.folder, shared - 1).exists()


def last_words(output: Path, code: int) -> str:
    """The sentence that a command ended with, from what it said."""
    said = output.read_text(errors="replace") if output.exists() else ""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else " / ".join([f"exit code {code}", *lines[-SHOWN_LINES:]])
