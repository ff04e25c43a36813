"""Where the time of a run went: named spans, and a steady img/s that leaves the warm-up out.

Both only read the wall clock. On a GPU work is queued: whoever wants a true figure synchronises at the
ends of a span (the epoch's last loss, read once, does that).
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up named spans: `with clock("train"): ...`, then `clock.seconds["train"]`."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


class Rate:
    """img/s over the steps after the first `warmup_steps`, which pay for compilation and allocation.

    with rate.running():              # once an epoch: what lies between (validation) does not count
        for batch in batches: ...; rate.step(len(batch))
    """

    def __init__(self, warmup_steps: int = 10) -> None:
        self.warmup_steps = warmup_steps
        self.steps = 0
        self.images = 0  # after the warm-up
        self.seconds = 0.0
        self._since: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count time inside the block, once the warm-up is over."""
        self._since = time.perf_counter() if self.steps >= self.warmup_steps else None
        try:
            yield
        finally:
            if self._since is not None:
                self.seconds += time.perf_counter() - self._since
            self._since = None

    def step(self, images: int) -> None:
        """One step with `images` images is done."""
        self.steps += 1
        if self.steps > self.warmup_steps:
            self.images += images
        elif self.steps == self.warmup_steps:
            self._since = time.perf_counter()

    @property
    def img_per_s(self) -> float | None:
        """Steady img/s so far, or None while every step was warm-up."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self.images / (self.seconds + running) if self.images else None
