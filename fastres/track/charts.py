"""The curves of the local dashboard as SVG: error, loss, speed, wait for data, learning rate, by run and stage."""

import io
from collections.abc import Callable, Sequence

from fastres.track.pictures import BORDER, COLOURS, PAPER, text_figure
from fastres.track.run_view import RunView

# y axis, column of the points, title; drawn over images seen, and only where some run has the column
BY_IMAGES = (
    ("img_per_s", "Training speed", "img/s"),
    ("data_wait_pct", "Waiting for data", "share of training time (%)"),
    ("train_loss", "Training loss", "mean of the epoch so far"),
    ("lr", "Learning rate", "rate"),
    ("gpu_mem_gb", "GPU memory", "most so far (GB)"),
    ("mfu_pct", "Share of the GPU's peak (MFU)", "%"),
)


def error_chart(runs: Sequence[RunView]) -> bytes | None:
    """Validation error by epoch: top-1 strong, top-5 thin; dotted: the paper's. None where there is no epoch yet."""
    if not any(run.epochs for run in runs):
        return None
    figure, axes = text_figure(11.0, 4.8)
    for run, colour in _coloured(runs):
        for column, name, style in (("val_top1_err", "top-1", {"lw": 2.0, "ms": 4.5}),
                                    ("val_top5_err", "top-5", {"lw": 1.0, "ms": 2.5, "alpha": 0.6})):
            at, errors = run.series(run.epochs, "epoch_total", column)
            axes.plot(at, errors, color=colour, marker="o", label=f"{run.label}, {name}", **style)
    expected = {name: run.schedule.get("expected", {}).get(name) for run in runs for name in ("centre top1",)}
    for name, error in expected.items():
        if error is not None and len({run.schedule.get("name") for run in runs}) == 1:
            axes.axhline(error, color=PAPER, lw=1.2, ls=":", label=f"the paper, {name.removesuffix(' top1')}")
    _finish(axes, runs, lambda border: border.epoch + 0.5)
    axes.set(xlabel="epoch (over all stages)", ylabel="validation error, centre crop (%)", ylim=(0, None))
    axes.set_title("Validation error", pad=22)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure)


def image_charts(runs: Sequence[RunView]) -> dict[str, bytes]:
    """{title: SVG} over the training images seen, for every column that a run has."""
    drawn = {}
    for column, title, unit in BY_IMAGES:
        curves = [(run, colour, *run.series(run.points, "images_seen", column)) for run, colour in _coloured(runs)]
        if not any(at for _, _, at, _ in curves):
            continue
        figure, axes = text_figure(6.4, 3.8)
        for run, colour, at, values in curves:
            axes.plot([images / 1000 for images in at], values, color=colour, lw=1.6, marker="o", ms=2.5,
                      label=run.label)  # fmt: skip
        _finish(axes, runs, lambda border: None if border.images is None else border.images / 1000)
        axes.set(xlabel="training images seen (thousands)", ylabel=unit)
        if column != "lr":
            axes.set_ylim(bottom=0)
        axes.set_title(title, pad=22)
        drawn[title] = _svg(figure)
    return drawn


def _coloured(runs: Sequence[RunView]) -> list[tuple[RunView, str]]:
    return [(run, COLOURS[index % len(COLOURS)]) for index, run in enumerate(runs)]


def _finish(axes, runs: Sequence[RunView], place: Callable) -> None:
    """Stage borders, dashed: one colour where all runs share them, else each run's own; grid, legend."""
    everywhere = {tuple((b.name, place(b)) for b in run.borders()) for run in runs}
    for run, colour in _coloured(runs) if len(everywhere) > 1 else [(runs[0], BORDER)]:
        start = 0.0
        for border in run.borders():
            end = place(border)
            if end is None:
                continue
            axes.axvline(end, color=colour, lw=1.0, ls="--", alpha=0.7, zorder=0)
            if len(everywhere) == 1:
                axes.annotate(border.name, ((start + end) / 2, 1.0), xycoords=("data", "axes fraction"), ha="center",
                              va="bottom", xytext=(0, 3), textcoords="offset points", fontsize=9.5, color="#444444",
                              annotation_clip=False)  # fmt: skip
            start = end
    axes.grid(axis="y", color="#e4e4e4", lw=0.8)
    axes.set_xlim(left=0)
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)


def _svg(figure) -> bytes:
    """The figure as SVG, its texts as texts."""
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(content, format="svg")
    return content.getvalue()
