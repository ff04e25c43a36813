"""Pictures of what a network answers: images with their answers written under them, and which classes it confuses.

Runs, evaluations and studies draw with it. Pillow puts every letter and cell at its pixel: matplotlib's layout of
hundreds of names takes longer than some evaluations.
"""

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastres.machine.files import write_atomic

BLACK, RIGHT, WRONG, NEITHER = "#111111", "#2a7d4f", "#b5472f", "#555555"
COLUMNS, PANEL, SHOWN, GAP, LINE = 4, 330, 280, 14, 20  # panels a row; pixels: a panel, its image, margins, a line
MOST_NAMES, NAMES = 250, 190  # classes that are named along a matrix; pixels for their names
CELL, LARGEST, SMALLEST = (4, 40), 1_900, 280  # pixels: a class, the whole matrix at most and at least
DIAGONAL = (200, 200, 200)
RAMP = ((255, 252, 240), (252, 197, 120), (226, 94, 74), (140, 28, 98), (22, 10, 50))  # no image to the most


@dataclass(frozen=True)
class Panel:
    """An image u8 [S, S, 3], what it shows, and lines under it: (text, whether it is right; None: it is neither)."""

    image: np.ndarray
    title: str
    lines: Sequence[tuple[str, bool | None]]


def answer_lines(answers: Mapping[str, str], truth: str) -> list[tuple[str, bool]]:
    """What each crop method answers, by name, as a panel's lines."""
    return [(f"{'✓' if said == truth else '✗'} {method}: {said}", said == truth) for method, said in answers.items()]


def answer_sheet(panels: Sequence[Panel], path: Path) -> Path:
    """At most COLUMNS panels a row, lettered from (a)."""
    columns = min(COLUMNS, len(panels))
    height = SHOWN + LINE * (2 + max(len(panel.lines) for panel in panels)) + GAP
    sheet = Image.new("RGB", (PANEL * columns + GAP, height * -(-len(panels) // columns) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, panel in enumerate(panels):
        left, top = GAP + PANEL * (place % columns), GAP + height * (place // columns)
        title = _fitting(f"({chr(97 + place)}) {panel.title}", 16, SHOWN + GAP)
        draw.text((left, top), title, BLACK, _font(16))
        image = Image.fromarray(panel.image).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)
        sheet.paste(image, (left, top + LINE + 6))
        for number, (text, right) in enumerate(panel.lines):
            colour = NEITHER if right is None else RIGHT if right else WRONG
            below = top + LINE + 12 + SHOWN + LINE * number
            draw.text((left, below), _fitting(text, 13, PANEL - GAP), colour, _font(13))
    return _save(sheet, path)


def confusion_matrix(counts: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """i64 [C, C], images of the row's class that got the column's for an answer, in the order that is to be seen.

    Colour is the share of the row's images; its scale ends at the largest confusion, and the diagonal is gray.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(shares, 0.0)
    most = float(shares.max()) or 1.0
    colours = _ramp(shares / most)
    colours[np.arange(len(names)), np.arange(len(names))] = DIAGONAL
    cell = int(np.clip(LARGEST // len(names), *CELL))
    cell = max(cell, SMALLEST // len(names))
    side, named = cell * len(names), len(names) <= MOST_NAMES
    left, top = (NAMES if named else 40), 70
    sheet = Image.new("RGB", (left + max(side, SMALLEST + 460) + 20, top + side + left + 60), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((left, 10), f"Confusions of {len(names)} classes", BLACK, _font(20))
    draw.text(
        (left, 38),
        "row: true class, column: answer; those taken for each other side by side (average linkage)",
        NEITHER,
        _font(14),
    )
    sheet.paste(Image.fromarray(colours.repeat(cell, 0).repeat(cell, 1)), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=NEITHER)
    if named:
        labels = _labels(names, cell)
        sheet.paste(labels, (0, top))
        sheet.paste(labels.transpose(Image.Transpose.ROTATE_90), (left, top + side + 4))
    _scale(draw, sheet, (left, top + side + left + 14), most)
    return _save(sheet, path)


def _labels(names: Sequence[str], cell: int) -> Image.Image:
    """The names under each other, a cell apart, to the right: NAMES pixels wide."""
    strip = Image.new("RGB", (NAMES, cell * len(names)), "white")
    draw, size = ImageDraw.Draw(strip), min(15, cell - 1 if cell > 8 else cell)
    for place, name in enumerate(names):
        text = _fitting(name, size, NAMES - 8)
        draw.text((NAMES - 5, cell * (place + 0.5)), text, BLACK, _font(size), anchor="rm")
    return strip


def _scale(draw: ImageDraw.ImageDraw, sheet: Image.Image, corner: tuple[int, int], most: float) -> None:
    ramp = _ramp(np.linspace(0.0, 1.0, SMALLEST)[None].repeat(14, 0))
    sheet.paste(Image.fromarray(ramp), corner)
    text = f"0 to {100 * most:.3g} % of the true class's images"
    draw.text((corner[0] + SMALLEST + 8, corner[1] + 7), text, BLACK, _font(13), anchor="lm")


def _ramp(shares: np.ndarray) -> np.ndarray:
    """Colours u8 [..., 3] of numbers from 0 to 1."""
    stops = np.linspace(0.0, 1.0, len(RAMP))
    return np.stack([np.interp(shares, stops, channel) for channel in zip(*RAMP, strict=True)], -1).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the other pictures, which comes with matplotlib."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _fitting(text: str, size: int, width: int) -> str:
    """As much of `text` as `width` pixels hold on one line, with … where some is left out."""
    text, font = " ".join(text.split()), _font(size)
    if font.getlength(text) <= width:
        return text
    kept = bisect_right(range(len(text)), width, key=lambda kept: font.getlength(f"{text[:kept]}…")) - 1
    return f"{text[: max(kept, 0)]}…"


def _save(sheet: Image.Image, path: Path) -> Path:
    """As a PNG, whole or not at all."""
    picture = io.BytesIO()
    sheet.save(picture, "PNG", compress_level=3)
    write_atomic(Path(path), picture.getvalue())
    return Path(path)
