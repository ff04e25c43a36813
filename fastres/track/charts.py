"""The curves of the local dashboard as SVG: error, loss, speed, wait for data, learning rate, by run and stage."""

import math
from collections.abc import Callable, Sequence

from fastres.track.metrics import IMAGES, charts
from fastres.track.pictures import BORDER, COLOURS, PAPER, legend_label, name_stages, text_figure
from fastres.track.run_view import RunView
from fastres.track.svg import GRID, INK, inline
from fastres.track.windows import window_losses

WIDTH, HEIGHT = 5.6, 3.8  # inches: its texts can be read at a phone's width, and two stand side by side on a desk
STRONG, THIN = {"lw": 2.0, "ms": 4.0, "marker": "o"}, {"lw": 1.0, "ms": 2.0, "marker": "o", "alpha": 0.7}
LETTERS = 64  # of a stage's name that fit beside each other above a chart
ERROR, LOSS = "Validation error", "Loss"


def error_chart(runs: Sequence[RunView]) -> str | None:
    """Validation error by epoch: top-1 strong, top-5 thin; dotted: the paper's. None where there is no epoch yet."""
    if not any(run.epochs for run in runs):
        return None
    figure, axes = text_figure(WIDTH, HEIGHT)
    for run, colour in _coloured(runs):
        for column, name, style in (("val_top1_err", "top-1", STRONG), ("val_top5_err", "top-5", THIN)):
            at, errors = run.series(run.epochs, "epoch_total", column)
            axes.plot(at, errors, color=colour, label=_label(runs, run, name, style), **style)
    expected = {run.expected.get("centre top1") for run in runs}
    for error in expected - {None}:
        if len({run.schedule.get("name") for run in runs}) == 1:
            axes.axhline(error, color=PAPER, lw=1.2, ls=":", label="the paper, centre")
    _finish(axes, runs, lambda border: border.epoch + 0.5)
    axes.set(xlabel="epoch (over all stages)", ylabel="error, centre crop (%)", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return inline(figure, ERROR)


def loss_chart(runs: Sequence[RunView]) -> str | None:
    """Training loss by window of steps, thin, and validation loss at the epochs' ends, strong, over training images.
    None where there is neither."""
    curves = []
    for run, colour in _coloured(runs):
        curves.append((run, colour, "training", THIN, *window_losses(run.points)))
        curves.append((run, colour, "validation", STRONG, *run.series(run.epochs, IMAGES, "val_loss")))
    if not any(at for *_, at, _ in curves):
        return None
    judged = {id(run) for run, _, _, style, at, _ in curves if style is STRONG and at}
    figure, axes = text_figure(WIDTH, HEIGHT)
    for run, colour, name, style, at, values in curves:
        if at:
            named = STRONG if style is STRONG or id(run) not in judged else THIN
            axes.plot(_thousands(at), values, color=colour, label=_label(runs, run, name, named), **style)
    _finish(axes, runs, _by_images)
    axes.set(xlabel="training images seen (thousands)", ylabel="loss (nats)")
    axes.set_ylim(bottom=0)
    return inline(figure, LOSS)


def image_charts(runs: Sequence[RunView]) -> dict[str, str]:
    """{title: SVG} over the training images seen, for every other metric that a run has."""
    drawn = {}
    for metric in charts():
        curves = [(run, colour, *run.series(run.points, IMAGES, metric.column)) for run, colour in _coloured(runs)]
        if not any(at for _, _, at, _ in curves):
            continue
        figure, axes = text_figure(WIDTH, HEIGHT)
        for run, colour, at, values in curves:
            axes.plot(_thousands(at), values, color=colour, lw=1.6, marker="o", ms=2.5, label=legend_label(run.label))
        _finish(axes, runs, _by_images, legend=len(runs) > 1)
        axes.set(xlabel="training images seen (thousands)", ylabel=metric.chart_unit or metric.unit)
        _range_y(axes, [value for *_, values in curves for value in values], metric.name == "lr")
        drawn[metric.title] = inline(figure, metric.title)
    return drawn


def _range_y(axes, values: Sequence[float], near: bool) -> None:
    """From 0 up; with `near` as the values lie, where there are two: one alone is a line in the middle."""
    finite = [value for value in values if math.isfinite(value)]
    constant = bool(finite) and max(finite) - min(finite) <= 1e-9 * max(map(abs, finite))
    if near and not constant:
        return
    axes.set_ylim(bottom=0, top=2 * finite[0] if constant and finite[0] > 0 else None)


def _thousands(images: Sequence[float]) -> list[float]:
    return [count / 1000 for count in images]


def _by_images(border) -> float | None:
    return None if border.images is None else border.images / 1000


def _label(runs: Sequence[RunView], run: RunView, name: str, style: dict) -> str:
    """In the legend: what a curve shows; of several runs their names alone, on the strong curves."""
    if len(runs) == 1:
        return name
    return legend_label(run.label) if style is STRONG else "_"


def _coloured(runs: Sequence[RunView]) -> list[tuple[RunView, str]]:
    return [(run, COLOURS[index % len(COLOURS)]) for index, run in enumerate(runs)]


def _finish(axes, runs: Sequence[RunView], place: Callable, legend: bool = True) -> None:
    """Stage borders, dashed: one colour where all runs share them, else each run's own; grid, legend."""
    everywhere = {tuple((b.name, place(b)) for b in run.borders()) for run in runs}
    for run, colour in _coloured(runs) if len(everywhere) > 1 else [(runs[0], BORDER)]:
        borders = [(border.name, place(border)) for border in run.borders() if place(border) is not None]
        for _, end in borders:
            axes.axvline(end, color=colour, lw=1.0, ls="--", alpha=0.7, zorder=0)
        if len(everywhere) == 1 and borders:
            starts = [0.0, *(end for _, end in borders)]
            bands = [(name, start, end) for (name, end), start in zip(borders, starts)]
            name_stages(axes, bands, LETTERS, 9.5, INK)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_xlim(left=0)
    if legend:
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
