"""Progress of one phase on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `total` units (None: unknown) of one phase, with rate and time left. A context manager."""

    def __init__(self, title: str, total: int | None, unit: str = "img", done: int = 0):
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._first = done  # a resumed download did not do these now
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                desc=title, total=total, unit=unit, initial=done, unit_scale=unit == "B", file=sys.stderr
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            seconds = time.monotonic() - self._start
            self._print(f"{self.done:,} {self.unit} in {seconds:.1f} s, {self.rate():,.0f} {self.unit}/s")

    def rate(self) -> float:
        """Units a second since the phase began."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def at(self, done: int, total: int) -> None:
        """For those who count themselves: so many of so many are done."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total
        self.update(done - self.done)

    def update(self, units: int) -> None:
        self.done += units
        if self._bar is not None:
            self._bar.update(units)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            rate = self.rate()
            left = ""
            if self.total and rate > 0:
                seconds = (self.total - self.done) / rate
                left = f" of {self.total:,} ({self.done / self.total:.0%}), {seconds:.0f} s left"
            self._print(f"{self.done:,}{left}, {rate:,.0f} {self.unit}/s")

    def _print(self, text: str) -> None:
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)
