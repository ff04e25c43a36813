"""`study paper --dry-run`: what would be trained, what is shared, and how long it takes here."""

import contextlib
import io
import json
from dataclasses import replace

from fastres import train
from fastres.model.compute import unit_for
from fastres.schedule_file import write_schedule
from fastres.schedule_types import Schedule
from fastres.study.jobs import Job
from fastres.study.tables import Table
from fastres.study.work import schedule_file

START_S = 10.0  # of every run beside training: imports, data, validation, twelve crops, pictures


def estimate(jobs: list[Job], options: list[str], trials: int = 0, notes: tuple[str, ...] = ()) -> dict:
    """Seconds of every job's own stages, from train's dry run of its schedule; each schedule is timed once.

    trials  short runs that find a system's rate first: one epoch of every stage
    notes   what is not counted
    """
    seconds = {job.schedule.name: _stage_seconds(job, options) for job in jobs if job.seed == 0}
    rows = [
        {"system": job.schedule.name, "seed": job.seed, "shared_stages": job.shared,
         "shared_with": job.parent.schedule.name if job.parent else None,
         "epochs": sum(stage.epochs for stage in job.schedule.stages[job.shared :]), "operations": job.cost,
         "seconds": sum(seconds[job.schedule.name][job.shared :]) + START_S}
        for job in jobs
    ]  # fmt: skip
    searching = sum(
        trials * (START_S + sum(s / stage.epochs for s, stage in zip(seconds[job.schedule.name], job.schedule.stages)))
        for job in jobs if job.seed == 0
    )  # fmt: skip
    total = searching + sum(row["seconds"] for row in rows)
    return {"jobs": rows, "search_seconds": searching, "seconds": total, "not_counted": list(notes)}


def _stage_seconds(job: Job, options: list[str]) -> list[float]:
    file = write_schedule(schedule_file(job).with_suffix(".timed.py"), from_nothing(job.schedule), "For a dry run.")
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        train.main(["--schedule", str(file), *options, "--dry-run", "--json"])
    file.unlink()
    return [stage["expected_s"] for stage in json.loads(answer.getvalue())["stages"]]


def from_nothing(schedule: Schedule) -> Schedule:
    """The same schedule without its weights, which may not be there yet and cost nothing to train with."""
    return replace(schedule, weights=None)


def as_text(result: dict) -> str:
    """A table of the jobs and the time of all."""
    size, unit = unit_for(max(row["operations"] for row in result["jobs"]))
    rows = [
        (row["system"], row["seed"], f"{row['shared_stages']} of {row['shared_with']}" if row["shared_with"] else "–",
         row["epochs"], row["operations"] / size, round(row["seconds"]))
        for row in result["jobs"]
    ]  # fmt: skip
    table = Table("What would be trained", ("system", "seed", "shared stages", "own epochs", unit, "about s"), rows)
    searching = f", {result['search_seconds'] / 60:.0f} of them to find the rates" if result["search_seconds"] else ""
    lines = [table.text(), f"about {result['seconds'] / 60:.0f} min in all{searching}",
             *(f"not counted: {note}" for note in result["not_counted"])]  # fmt: skip
    return "\n".join(lines)
