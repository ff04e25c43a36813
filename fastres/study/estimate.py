"""`study paper --dry-run`: what would be trained, what is shared, and how long it takes here."""

import contextlib
import io
import json
from dataclasses import replace

import torch

from fastres import train
from fastres.data.manifest import Manifest
from fastres.model.compute import stage_flop, unit_for
from fastres.schedule_types import Schedule
from fastres.study.jobs import Job
from fastres.study.tables import Table
from fastres.study.task import schedule_file
from fastres.study.tune import FACTORS
from fastres.views import TWELVE_VIEWS

START_S = 8.0  # of every run beside training and validation: imports, data, pictures


def estimate(
    jobs: list[Job], options: list[str], manifest: Manifest, at_a_time: int = 1, threads: int | None = None, *,
    searches: bool = False,
) -> dict:  # fmt: skip
    """Seconds of every job's own stages, from train's dry run of its schedule; each schedule is timed once.

    at_a_time, threads  runs side by side, and what each may use of a CPU: it is timed with as much
    searches            whether each system's rate is searched first: one epoch of every stage of its own a trial
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        timed = {job.system: _Seconds(job, options, manifest) for job in jobs if job.seed == 0}
    finally:
        torch.set_num_threads(before)
    rows = [
        {"system": job.system, "seed": job.seed, "shared_stages": job.shared,
         "shared_with": job.parent.system if job.parent else None,
         "epochs": sum(stage.epochs for stage in job.schedule.stages[job.shared :]), "operations": job.cost,
         "seconds": timed[job.system].of_run()}
        for job in jobs
    ]  # fmt: skip
    searching = sum(len(FACTORS) * seconds.of_trial() for seconds in timed.values()) / at_a_time if searches else 0.0
    total = searching + sum(row["seconds"] for row in rows) / at_a_time
    return {"jobs": rows, "at_a_time": at_a_time, "search_seconds": searching, "seconds": total}


class _Seconds:
    """What a job's own stages take, an epoch each."""

    def __init__(self, job: Job, options: list[str], manifest: Manifest) -> None:
        stages, plain = job.schedule.stages, job.schedule.to_dict()
        classes, side = manifest.num_classes, manifest.side
        head = {**plain, "stages": [{**stage, "train": ["fc.*"]} for stage in plain["stages"]]}
        forward = zip(stage_flop(head, classes, side), stage_flop(plain, classes, side), strict=True)
        self._own = slice(job.shared, None)
        self._epochs = [stage.epochs for stage in stages]
        timed = zip(_stage_seconds(job, options), self._epochs, strict=True)
        self._epoch_s = [seconds / epochs for seconds, epochs in timed]
        # what trains an image goes forward on it, and validation does nothing else
        share = [only / both * manifest.count("val") / manifest.count("train") for only, both in forward]
        self._val_s = [seconds * part for seconds, part in zip(self._epoch_s, share, strict=True)]

    def of_run(self) -> float:
        """All epochs, validation after each, twelve crops at the end."""
        return START_S + self._sum(self._epochs) + len(TWELVE_VIEWS) * self._val_s[-1]

    def of_trial(self) -> float:
        """One epoch of each."""
        return START_S + self._sum([1] * len(self._epochs))

    def _sum(self, epochs: list[int]) -> float:
        rows = list(zip(epochs, self._epoch_s, self._val_s, strict=True))
        return sum(count * (train_s + val_s) for count, train_s, val_s in rows[self._own])


def _stage_seconds(job: Job, options: list[str]) -> list[float]:
    file = schedule_file(job, from_nothing(job.schedule), "For a dry run.", ".timed.py")
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        train.main(["--schedule", str(file), *options, "--dry-run", "--json"])
    file.unlink()
    return [stage["expected_s"] for stage in json.loads(answer.getvalue())["stages"]]


def from_nothing(schedule: Schedule) -> Schedule:
    """The same schedule without its weights, which cost nothing to train with and may not be here."""
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
    side_by_side = f", {result['at_a_time']} at a time and all of them busy" if result["at_a_time"] > 1 else ""
    return f"{table.text()}\nabout {result['seconds'] / 60:.0f} min in all{side_by_side}{searching}"
