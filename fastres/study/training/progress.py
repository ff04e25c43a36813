"""One bar over the whole study, weighted by arithmetic, with the time left; a line a run where there is no terminal."""

import time
from typing import TYPE_CHECKING

from fastres.machine.console import Progress, say

if TYPE_CHECKING:
    from fastres.study.training.task import Task


class Overall:
    """Progress over tasks, some at a time. Time left is what is left of the cost, at the speed so far."""

    def __init__(self, tasks: "list[Task]", done_before: int) -> None:
        self._before, self._count = done_before, len(tasks)
        self._left = {task: task.cost * (1 - task.part()) for task in tasks}  # some were begun by an earlier command
        self._total = sum(self._left.values()) or 1.0
        self._over, self._done = 0, 0.0  # tasks that ended, and their cost
        self._running: dict[Task, float] = {}  # when each started
        self._awaited: list[str] = []
        self._started = time.perf_counter()
        self._bar = Progress(100.0, "", "%", bar_format="{desc} {bar} {percentage:3.0f}%")
        if done_before:
            say(f"{done_before} of {done_before + self._count} jobs are done already")

    def begin(self, task: "Task") -> None:
        """`task` starts."""
        self._running[task] = time.perf_counter()
        self.look()

    def look(self) -> None:
        """Ask those that run how far they are."""
        since = (self._left[task] - task.cost * (1 - task.part()) for task in self._running)
        fraction = (self._done + sum(since)) / self._total
        names = ", ".join(task.name for task in self._running)
        self._bar.at(100.0 * fraction, 100.0, f"{self._where()} {names}, {self.time_left(fraction)}")

    def wait_for(self, names: list[str]) -> None:
        """Nothing can start before these have left."""
        if names != self._awaited:
            say(f"waiting for {', '.join(names)}: a process that an earlier command began is still at it")
        self._awaited = names

    def end(self, task: "Task", error: str) -> None:
        """It is over: well, or with a sentence on why not."""
        took = time.perf_counter() - self._running.pop(task)
        self._done, self._over = self._done + self._left[task], self._over + 1
        left = self.time_left(self._done / self._total)
        say(f"{self._where()} {task.name}: {error or 'done'} ({took:.0f} s); {left}")

    def time_left(self, fraction: float) -> str:
        """In words, from the fraction of the work that is done."""
        if fraction <= 0:
            return "time left not known yet"
        seconds = (time.perf_counter() - self._started) * (1 - fraction) / fraction
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _where(self) -> str:
        return f"[{self._before + self._over}/{self._before + self._count}]"

    def __enter__(self) -> "Overall":
        return self

    def __exit__(self, *_) -> None:
        self._bar.__exit__(None)
