"""What a person at the terminal sees: a bar while images pass, plain lines, aligned tables. All on stderr, so
that stdout carries only what a command was asked for."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from fastres.machine import terminal
from fastres.machine.terminal import escaped

SECONDS_BETWEEN_LINES = 10.0  # where there is no bar
_muted = False  # in every process of a run but the first
_said: set[str] = set()


class Progress:
    """Counts `total` units (None: unknown) of some work, with its rate, the time left and newest figures.

        with Progress(len(ids), "stage 1/4 epoch 2/5") as progress:
            progress.update(len(batch), loss=1.23, err=45.6)

    A bar on a terminal. Elsewhere a plain line every few seconds and one at the end where `lines` asks for them: not
    where the work's own command says a line often enough.
    """

    def __init__(
        self,
        total: float | None,
        label: str,
        unit: str = "img",
        *,
        done: float = 0,
        lines: bool = False,
        bar_format: str | None = None,
    ) -> None:
        """`done`: units that an earlier command did; `bar_format`: tqdm's."""
        on_terminal = sys.stderr.isatty()
        self.total, self.label, self.unit, self.done = total, escaped(label), unit, done
        self._first, self._lines = done, lines and not on_terminal and not _muted
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=self.label,
            unit=unit,
            unit_scale=unit == "B",
            leave=lines,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=_muted or not on_terminal,
            mininterval=0.2,
            bar_format=bar_format,
        )

    def update(self, units: float, **figures: float) -> None:
        """`units` more are done; `figures` are numbers on the host: one on a GPU costs a sync a step."""
        self.done += units
        if figures and not self._bar.disable:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
        self._bar.update(units)
        if self._lines and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._say_how_far()

    def at(self, done: float, total: float, label: str | None = None) -> None:
        """For those who count themselves: so many of so many are done."""
        self.total = self._bar.total = total
        if label is not None:
            self._bar.set_description_str(escaped(label), refresh=False)
        self.update(done - self.done)

    def rate(self) -> float:
        """Units a second since the work began."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _say_how_far(self) -> None:
        self._last_line, rate, left = time.monotonic(), self.rate(), ""
        if self.total and rate > 0:
            left = f" of {self.total:,} ({self.done / self.total:.0%}), {(self.total - self.done) / rate:.0f} s left"
        self._print(f"{self.done:,}{left}, {self._rate_text()}")

    def _rate_text(self) -> str:
        rate = self.rate()
        return f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"

    def _print(self, text: str) -> None:
        print(f"{self.label}: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        self._bar.close()
        if self._lines and kind is None:
            seconds = time.monotonic() - self._start
            self._print(f"{self.done:,} {self.unit} in {seconds:.1f} s, {self._rate_text()}")


def say(text: str) -> None:
    """Print a line on stderr, above any bar that is being drawn."""
    if not _muted:
        tqdm.write(escaped(text), file=sys.stderr)
        sys.stderr.flush()


def say_once(text: str) -> None:
    """`say` the first time, nothing when the same is to be said again: of a file that several rooms read."""
    if text not in _said:
        _said.add(text)
        say(text)


def show_kept(text: str, place: Path) -> None:
    """Print on stdout what is in a file as well: a stdout that cannot be written is then no fault of the command."""
    print(text)
    if lost := terminal.lost_output():
        say(f"standard output could not be written ({lost.strerror}); {place} has the same")
        terminal.forgive_output()


def mute() -> None:
    """Say nothing from here on: another process of the same run says it."""
    global _muted
    _muted = True


def table(rows: Sequence[Sequence], header: Sequence[str]) -> str:
    """Aligned plain text, the first column to the left; floats with two decimals, None as –."""
    cells = [[str(name) for name in header], *([as_text(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    lines = [[text.rjust(width) for text, width in zip(row, widths, strict=True)] for row in cells]
    for line, row in zip(lines, cells, strict=True):
        line[0] = row[0].ljust(widths[0])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def as_text(value) -> str:
    """A cell of a table: a float with two decimals, None as –."""
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
