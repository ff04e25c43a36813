"""One bar over the whole study, weighted by arithmetic, with the time left; a line a run where there is no terminal."""

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from fastres.study.jobs import Job
from fastres.track.console import say

if TYPE_CHECKING:
    from fastres.study.work import Outcome


class Overall:
    """Progress over jobs. Time left is what is left of the cost, at the speed of this session so far."""

    def __init__(self, jobs: list[Job], done_before: int) -> None:
        self._jobs, self._number, self._before = jobs, 0, done_before
        self._total = sum(job.cost for job in jobs) or 1.0
        self._done = 0.0  # cost of the jobs that ended
        self._started = time.perf_counter()
        self._bar = tqdm(total=100.0, leave=False, dynamic_ncols=True, file=sys.stderr, mininterval=0.5,
                         disable=not sys.stderr.isatty(), bar_format="{desc} {bar} {percentage:3.0f}%")  # fmt: skip
        if done_before:
            say(f"{done_before} of {done_before + len(jobs)} runs are done already")

    def begin(self, job: Job) -> None:
        """`job` starts."""
        self._job, self._job_started = job, time.perf_counter()
        self._number += 1
        self.at([0] * len(job.schedule.stages))

    def at(self, epochs: list[int]) -> None:
        """`epochs` of every stage of the current job are done."""
        stages = self._job.schedule.stages[self._job.shared :]
        part = sum(epochs[self._job.shared :]) / max(1, sum(stage.epochs for stage in stages))
        fraction = (self._done + part * self._job.cost) / self._total
        self._bar.set_description_str(f"{self._where()} {self._job.name}, {self.time_left(fraction)}", refresh=False)
        self._bar.n = 100.0 * fraction
        self._bar.refresh()

    def end(self, outcome: "Outcome") -> None:
        """The current job is over."""
        self._done += self._job.cost
        took = time.perf_counter() - self._job_started
        said = outcome.error or "done"
        say(f"{self._where()} {self._job.name}: {said} ({took:.0f} s); {self.time_left(self._done / self._total)}")

    def time_left(self, fraction: float) -> str:
        """In words, from the fraction of the work that is done."""
        if fraction <= 0:
            return "time left not known yet"
        seconds = (time.perf_counter() - self._started) * (1 - fraction) / fraction
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _where(self) -> str:
        return f"[{self._before + self._number}/{self._before + len(self._jobs)}]"

    def __enter__(self) -> "Overall":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
