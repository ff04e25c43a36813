"""`study paper --dry-run`: what would be trained, what is shared, and how long it takes here."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fastres.data.libraries import require
from fastres.data.manifest import Manifest, load_manifest
from fastres.machine.device import choose_device, choose_precision
from fastres.model.flop import unit_for
from fastres.schedules.types import Schedule
from fastres.study.findings.tables import Table
from fastres.study.jobs import Job
from fastres.study.search.tune import FACTORS
from fastres.train.dry_run import dry_run
from fastres.train.options import Options
from fastres.views import TWELVE_VIEWS

START_S = 8.0  # of every run beside training and validation: imports, data, pictures


def estimate(
    jobs: list[Job],
    options: Callable[..., Options],
    manifest: Manifest,
    at_a_time: int = 1,
    threads: int | None = None,
    *,
    searches: bool = False,
    first: Sequence[Options] = (),
) -> dict:
    """Seconds of every job's own stages, from train's dry run of its schedule; each schedule is timed once.

    options             makes a run of its schedule: data, device and the like are in it already
    at_a_time, threads  runs side by side, and what each may use of a CPU: it is timed with as much
    first               runs that are trained before all others, one after the other, with all of the machine
    searches            whether each system's rate is searched first: one epoch of every stage of its own a trial
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        timed = {
            job.system: _Seconds(job, options(schedule=from_nothing(job.schedule)), manifest)
            for job in jobs
            if job.seed == 0
        }
    finally:
        torch.set_num_threads(before)
    rows = [
        {
            "system": job.system,
            "seed": job.seed,
            "shared_stages": job.shared,
            "shared_with": job.parent.system if job.parent else None,
            "epochs": sum(stage.epochs for stage in job.schedule.stages[job.shared :]),
            "operations": job.cost,
            "seconds": timed[job.system].of_run(),
        }
        for job in jobs
    ]
    searching = sum(len(FACTORS) * seconds.of_trial() for seconds in timed.values()) / at_a_time if searches else 0.0
    pretraining = {
        run.schedule.name: sum(row["expected_s"] for row in _stages(run, load_manifest(run.data))) for run in first
    }
    total = sum(pretraining.values()) + searching + sum(row["seconds"] for row in rows) / at_a_time
    return {
        "pretraining": pretraining,
        "jobs": rows,
        "at_a_time": at_a_time,
        "search_seconds": searching,
        "seconds": total,
    }


class _Seconds:
    """What a job's own stages take, an epoch each."""

    def __init__(self, job: Job, options: Options, manifest: Manifest) -> None:
        rows = _stages(options, manifest)
        self._own = slice(job.shared, None)
        self._epochs = [row["epochs"] for row in rows]
        self._epoch_s, self._val_s = (
            [row[name] / row["epochs"] for row in rows] for name in ("expected_s", "validation_s")
        )

    def of_run(self) -> float:
        """All epochs, validation after each, twelve crops at the end."""
        return START_S + self._sum(self._epochs) + len(TWELVE_VIEWS) * self._val_s[-1]

    def of_trial(self) -> float:
        """One epoch of each."""
        return START_S + self._sum([1] * len(self._epochs))

    def _sum(self, epochs: list[int]) -> float:
        rows = list(zip(epochs, self._epoch_s, self._val_s, strict=True))
        return sum(count * (train_s + val_s) for count, train_s, val_s in rows[self._own])


def _stages(options: Options, manifest: Manifest) -> list[dict]:
    """train's dry run of each stage."""
    require(options.engine)
    precision = choose_precision(options.precision, choose_device(options.device))
    return dry_run(options.schedule, manifest, precision)["stages"]


def from_nothing(schedule: Schedule) -> Schedule:
    """The same schedule without its weights, which cost nothing to train with and may not be here."""
    return replace(schedule, weights=None)


def as_text(result: dict) -> str:
    """A table of the jobs and the time of all."""
    size, unit = unit_for(max(row["operations"] for row in result["jobs"]))
    rows = [
        (
            row["system"],
            row["seed"],
            f"{row['shared_stages']} of {row['shared_with']}" if row["shared_with"] else "–",
            row["epochs"],
            row["operations"] / size,
            round(row["seconds"]),
        )
        for row in result["jobs"]
    ]
    table = Table("What would be trained", ("system", "seed", "shared stages", "own epochs", unit, "about s"), rows)
    before = [f"first {name}, about {seconds / 60:.0f} min" for name, seconds in result["pretraining"].items()]
    searching = f", {result['search_seconds'] / 60:.0f} of them to find the rates" if result["search_seconds"] else ""
    side_by_side = f", {result['at_a_time']} at a time and all of them busy" if result["at_a_time"] > 1 else ""
    lines = "".join(f"{line}\n" for line in before)
    return f"{table.text()}\n{lines}about {result['seconds'] / 60:.0f} min in all{side_by_side}{searching}"
