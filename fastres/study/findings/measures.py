"""One number of one run by its name, and its mean and spread over seeds."""

import math
import statistics
from dataclasses import dataclass

from fastres.study.findings.runs import Trained
from fastres.track.error_table import standard_error

SETTLED = 1.0  # points: a curve has settled when it comes this near to the lowest error it reaches


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over n seeds; no deviation for one."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")

    def plain(self) -> dict:
        return {"mean": self.mean, "std": self.std, "n": self.n}


def measure(run: Trained, name: str) -> float | None:
    """A figure of a run; None where the run did not come so far.

    "METHOD top1" or "top5"          final error in % of a crop method, e^score summed; "METHOD top1 HOW" otherwise
    "first-epoch centre top1"        centre-crop error after the first epoch of the last stage
    "before-last-stage centre top1"  the same at the end of the stage before it
    "lowest centre top1"             lowest centre-crop error of any epoch of the last stage
    "epochs to settle"               epochs until the centre-crop error is within a point of its lowest
    """
    if name == "epochs to settle":
        return _settled(run)
    if name == "before-last-stage centre top1":
        stages = run.schedule["stages"]
        whole = len(stages) > 1 and len(before := run.stage_epochs(-2)) == stages[-2]["epochs"]
        return _top1(before[-1:]) if whole else None
    if name == "first-epoch centre top1":
        return _top1(run.stage_epochs(-1)[:1])
    if name == "lowest centre top1":
        return min((e for e in map(_error, run.stage_epochs(-1)) if e is not None), default=None)
    method, k, *how = name.split(" ")
    errors = run.errors(*how)
    return None if errors is None else errors[method][k]


def spread(runs: list[Trained], name: str) -> Spread | None:
    """A figure over all runs that have it; None where none has."""
    return spread_of([measure(run, name) for run in runs])


def ranked(systems: dict[str, list[Trained]]) -> list[str]:
    """Names of the systems by 12-crop top-1 error, the lowest first; those without a finished run last, as they are."""
    errors = {name: spread(runs, "12-crop top1") for name, runs in systems.items()}
    return sorted(systems, key=lambda name: errors[name].mean if errors[name] else math.inf)


def spread_of(values: list[float | None]) -> Spread | None:
    """Mean and standard deviation of those that are there."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Spread(statistics.mean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


def uncertainty(runs: list[Trained], found: Spread, count: int | None = None, wide: bool = False) -> float | None:
    """Standard error of an error in %: that of the validation images, and that of the seeds where there are several.

    All runs see the same validation images, so those do not average out over seeds. `count`: how many those are, by
    default what the first finished run says; None where none is finished. `wide`: half of an interval of 95 %, for
    which a few seeds count less, see `widened`.
    """
    count = count or next((run.summary["count"] for run in runs if run.status == "done"), None)
    if count is None:
        return None
    seeds = of_seeds(found) * (widened(found.n) if wide else 1.0)
    return math.hypot(standard_error(min(max(found.mean, 0.0), 100.0), count), seeds)


def of_seeds(found: Spread) -> float:
    """Standard error of a mean over seeds; 0 for one, which tells nothing of others."""
    return 0.0 if found.std is None else found.std / math.sqrt(found.n)


def widened(n: int) -> float:
    """How much wider than two standard errors the interval is that Student's distribution has for a mean of n figures,
    in which the normal distribution has 95.45 %."""
    return _STUDENT[min(n, len(_STUDENT) + 1) - 2] / 2 if n > 1 else 1.0


# Student's quantile at 0.97725 for 1, 2, .. degrees of freedom
_STUDENT = (13.968, 4.527, 3.307, 2.869, 2.649, 2.517, 2.429, 2.366, 2.320)


def _settled(run: Trained) -> float | None:
    errors = [_error(record) for record in run.epochs]
    if run.status != "done" or None in errors:
        return None
    return 1.0 + next(k for k, error in enumerate(errors) if error <= min(errors) + SETTLED)


def _top1(records: list[dict]) -> float | None:
    return _error(records[0]) if records else None


def _error(record: dict) -> float | None:
    return record["val_top1_err"]
