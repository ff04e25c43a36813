"""The pictures of a run, after the paper's figures 2, 4, 5 and 6: error by epoch, stem filters, views.

PNG files through matplotlib's object interface: no pyplot, so no global state, no display and no backend to choose.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from fastres.machine.files import write_atomic

DPI = 120
TOP1, TOP5, BORDER, PAPER = "#1f4e9c", "#8fb3e6", "#8a8a8a", "#b5472f"
COLOURS = ("#1f4e9c", "#d1495b", "#2a9d6f", "#e9a23b", "#7b4fa3", "#5c6670", "#0f8ea8", "#9c5c1f")  # by run, system


def error_curves(epochs: Sequence[dict], path: Path, paper: Mapping[str, float] | None = None) -> Path:
    """Validation error by epoch over the whole run, with stage borders (figures 5 and 6).

    `epochs`: the "epoch" records of log.jsonl, each with epoch_total (from 1), stage, stage_name, val_top1_err and
    val_top5_err in %; one that is null leaves a gap. `paper`: {"label": top-1 error in %}, drawn as dotted lines.
    """
    if not epochs:
        raise ValueError("no epoch records, so no error curve")
    figure, axes = text_figure(9.0, 5.0)
    at = [record["epoch_total"] for record in epochs]
    for key, label, style in (
        ("val_top1_err", "top-1", {"color": TOP1, "lw": 2.0, "marker": "o", "ms": 4.5}),
        ("val_top5_err", "top-5", {"color": TOP5, "lw": 1.5, "marker": "o", "ms": 3.0}),
    ):
        errors = [math.nan if record[key] is None else record[key] for record in epochs]
        axes.plot(at, errors, label=f"{label} error", **style)
        if math.isfinite(errors[-1]):
            axes.annotate(
                f"{errors[-1]:.1f} %",
                (at[-1], errors[-1]),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                color=style["color"],
                fontsize=11,
                fontweight="bold",
            )
    for label, error in (paper or {}).items():
        axes.axhline(error, color=PAPER, lw=1.2, ls=":")
        axes.annotate(
            f"{label}: {error:.1f} %",
            (0.01, error),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="bottom",
            color=PAPER,
            fontsize=9.5,
        )
    _stage_borders(axes, epochs)
    axes.set(
        xlabel="epoch (over all stages)",
        ylabel="validation error, centre crop (%)",
        ylim=(0, None),
        xlim=(at[0] - 0.5, at[-1] + 0.5 + 0.06 * (at[-1] - at[0] + 1)),
    )
    axes.set_title("Validation error by epoch", pad=36)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#e4e4e4", lw=0.8)
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
    return save_figure(figure, path)


def stem_filters(before: np.ndarray, after: np.ndarray, path: Path) -> Path:
    """The stem's filters as RGB tiles, before and after the surgery (figure 2): f32 [F,3,7,7] and [F,3,3,3]."""
    return filter_panels([("before", before), ("after", after)], path)


def filter_panels(panels: Sequence[tuple[str, np.ndarray]], path: Path) -> Path:
    """Sets of filters f32 [F,3,k,k] side by side as RGB tiles, the same filter at the same place of each.

    Each set has one common scale: middle gray is 0, full colour the 99th percentile of its absolute weights, so that a
    few large ones do not leave the rest gray.
    """
    columns = math.ceil(math.sqrt(len(panels[0][1])))
    figure, grid = text_figure(4.5 * len(panels), 5.2, columns=len(panels))
    for axes, (name, filters) in zip(grid, panels, strict=True):
        filters = np.asarray(filters, dtype=np.float32)
        count, _, height, width = filters.shape
        full = float(np.percentile(np.abs(filters), 99)) or 1.0
        axes.imshow(
            _mosaic(np.clip(0.5 + 0.5 * filters.transpose(0, 2, 3, 1) / full, 0.0, 1.0), columns),
            interpolation="nearest",
            extent=(0, columns, math.ceil(count / columns), 0),
        )
        axes.set_title(f"{name}: {count} filters of {height}×{width}")
        axes.set_xlabel(f"scale: gray 0, full colour ±{full:.2g}")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return save_figure(figure, path)


def view_sheet(
    train_views: np.ndarray,
    test_views: np.ndarray,
    names: Sequence[str],
    source: np.ndarray,
    path: Path,
    mean: Sequence[float],
    std: Sequence[float],
) -> Path:
    """What the network sees: training views, and the test views of one image (figure 4).

    `train_views` f32 [n,3,H,W] and `test_views` f32 [len(names),3,H,W], normalised by `mean` and `std` (RGB, in
    [0,1] units), which are undone; colours outside [0,1], as jitter without clamping makes them, are clipped for
    display only. `source` u8 [S,S,3] is the image of the test views.
    """
    from matplotlib.figure import Figure

    columns = 6
    train_rows, test_rows = math.ceil(len(train_views) / columns), math.ceil(len(names) / columns)
    side = 1.5  # inches a view
    figure = Figure(
        figsize=(side * (columns + 1.7), side * (train_rows + 1.25 * test_rows) + 1.1), dpi=DPI, layout="constrained"
    )
    rows = figure.subfigures(2, 1, height_ratios=(train_rows + 0.35, 1.25 * test_rows + 0.35))
    height, width = train_views.shape[2:]
    rows[0].suptitle(
        f"{len(train_views)} training views, {width}×{height}: random crop, flip, colour, lighting", fontsize=13
    )
    _tiles(rows[0].subplots(train_rows, columns, squeeze=False), _colours(train_views, mean, std), None)
    height, width = test_views.shape[2:]
    picture, views = rows[1].subfigures(1, 2, width_ratios=(1.7, columns))
    views.suptitle(f"its {len(names)} test views, {width}×{height}", fontsize=13)
    _tiles(views.subplots(test_rows, columns, squeeze=False), _colours(test_views, mean, std), names)
    axes = picture.subplots()
    axes.imshow(source, interpolation="nearest")
    axes.set_title(f"source, {source.shape[1]}×{source.shape[0]}", fontsize=13)
    axes.set_axis_off()
    return save_figure(figure, path)


def _stage_borders(axes, epochs: Sequence[dict]) -> None:
    """A dashed line between stages, and each stage's name above its band; names that would touch take two heights."""
    bands = []
    for _, records in groupby(epochs, key=lambda record: record["stage"]):
        records = list(records)
        bands.append((records[0]["stage_name"], records[0]["epoch_total"] - 0.5, records[-1]["epoch_total"] + 0.5))
    for _, start, _ in bands[1:]:
        axes.axvline(start, color=BORDER, lw=1.0, ls="--")
    name_stages(axes, bands, letters=95, size=10.0, color="#444444")


def name_stages(axes, bands: Sequence[tuple[str, float, float]], letters: int, size: float, color: str) -> None:
    """Each stage's name above its band (name, start, end); names that would touch take two heights.

    letters  how many of `size` points fit beside each other above the axes
    """
    total = bands[-1][2] - bands[0][1]
    crowded = any(len(name) > letters * (end - start) / total for name, start, end in bands)
    for index, (name, start, end) in enumerate(bands):
        axes.annotate(
            name,
            ((start + end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            xytext=(0, 0.4 * size + 1.4 * size * (index % 2 if crowded else 0)),
            textcoords="offset points",
            fontsize=size,
            color=color,
            annotation_clip=False,
        )


def _mosaic(tiles_FHWC: np.ndarray, columns: int) -> np.ndarray:
    """[F,H,W,3] in [0,1] as one image with white borders of a sixth of a tile, whatever the tile's pixels."""
    scale = 42 // tiles_FHWC.shape[1]  # 42 pixels a tile for 3 and for 7, so both mosaics look alike
    tiles = tiles_FHWC.repeat(scale, axis=1).repeat(scale, axis=2)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (3, 3), (3, 3), (0, 0)), constant_values=1.0)
    tiles[len(tiles_FHWC) :] = 1.0
    count, height, width, _ = tiles.shape
    grid = tiles.reshape(count // columns, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(count // columns * height, columns * width, 3)


def _colours(views_BCHW: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised [B,3,H,W] as displayable [B,H,W,3] in [0,1]."""
    views = np.asarray(views_BCHW, dtype=np.float32).transpose(0, 2, 3, 1)
    return np.clip(views * np.float32(std) + np.float32(mean), 0.0, 1.0)


def _tiles(grid: np.ndarray, images: np.ndarray, names: Sequence[str] | None) -> None:
    for index, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if index < len(images):
            axes.imshow(images[index], interpolation="nearest")
            if names is not None:
                axes.set_title(textwrap.fill(names[index], 15), fontsize=10, pad=3)


def text_figure(width: float, height: float, columns: int = 1, widths: Sequence[float] | None = None):
    """A figure of `width` × `height` inches and its axes, with fonts that stay readable in a README."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    grid = figure.subplots(1, columns, squeeze=False, width_ratios=widths)[0]
    for axes in grid:
        axes.tick_params(labelsize=11)
        axes.xaxis.label.set_size(12)
        axes.yaxis.label.set_size(12)
        axes.title.set_size(13)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, (grid[0] if columns == 1 else grid)


def legend_label(text: str) -> str:
    """A label as matplotlib shows it: a leading underscore would keep it out of the legend."""
    return f" {text}" if text.startswith("_") else text


def literal(figure) -> None:
    """Take the dollars in its texts for dollars: folders and classes may have them, and nothing of ours is TeX."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)


def save_figure(figure, path: Path) -> Path:
    """Write a matplotlib figure as a PNG, whole or not at all."""
    literal(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(Path(path), picture.getvalue())
    return Path(path)
