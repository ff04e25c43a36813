"""What a person at the terminal sees: a bar while images pass, plain lines, aligned tables. All on stderr, so
that stdout carries only what a command was asked for."""

import sys
from collections.abc import Sequence

from tqdm import tqdm

_muted = False  # in every process of a run but the first


class Progress:
    """A bar over `total_images` with img/s, time left, newest figures; nothing where stderr is no terminal.

        with Progress(len(ids), "stage 1/4 epoch 2/5") as progress:
            progress.update(len(batch), loss=1.23, err=45.6)
    """

    def __init__(self, total_images: int, label: str, initial: int = 0):
        self._bar = tqdm(total=total_images, initial=initial, desc=label, unit="img", leave=False, dynamic_ncols=True,
                         file=sys.stderr, disable=_muted or not sys.stderr.isatty(), mininterval=0.2)

    def update(self, n_images: int, **figures: float) -> None:
        """`n_images` more are done; `figures` are numbers on the host: one on a GPU costs a sync a step."""
        if figures and not self._bar.disable:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
        self._bar.update(n_images)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()


def say(text: str) -> None:
    """Print a line on stderr, above any bar that is being drawn."""
    if not _muted:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def mute() -> None:
    """Say nothing from here on: another process of the same run says it."""
    global _muted
    _muted = True


def table(rows: Sequence[Sequence], header: Sequence[str]) -> str:
    """Aligned plain text, the first column to the left; floats with two decimals, None as –."""
    cells = [[str(name) for name in header], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    lines = [[text.rjust(width) for text, width in zip(row, widths, strict=True)] for row in cells]
    for line, row in zip(lines, cells, strict=True):
        line[0] = row[0].ljust(widths[0])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _cell(value) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
