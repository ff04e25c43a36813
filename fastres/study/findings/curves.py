"""Figures 5 and 6 and their like: validation error by epoch, and beside it the same by arithmetic spent."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastres.model.flop import unit_for
from fastres.study.findings.runs import Trained
from fastres.track.pictures import BORDER, COLOURS, PAPER, legend_label, save_figure, text_figure


@dataclass(frozen=True)
class CurveFigure:
    """One figure: which systems, and what the paper's text says of it."""

    key: str
    title: str
    systems: tuple[str, ...]
    says: str
    lines: tuple[tuple[str, float], ...] = ()  # the paper's errors in %, drawn where the data are Tiny ImageNet
    least: int = 1  # systems without which there is nothing to see


FIGURES = (
    CurveFigure(
        "figure 5", "Retraining the fully connected layer", ("naive-fc", "feature-extractor", "feature-extractor-50"),
        "Naive fine-tuning converges to 48 % within 9 epochs; the fixed feature extractors of 18 and 50 layers are as "
        "good and converge sooner. The paper does not name the crop of the errors that it tabulates of them.",
        (("paper, naive", 48.69), ("paper, extractor", 48.93)),
    ),
    CurveFigure(
        "figure 6", "Retraining the initial convolution",
        ("initialized-fc", "conv1-naive", "paper", "conv1-blank"),
        "The staged model falls below 30 % in 5 epochs, as we read its second stage's. Scaled filters, all at once: "
        "38 % after one epoch, then nearly what it was. The first layer alone before the rest: almost 2 points better. "
        "A blank first layer (not drawn in the paper): never below 50 % in 15 epochs.",
        (("paper, final model", 27.1), ("paper, before size adaptation", 28.9)),
    ),
    CurveFigure(
        "torch7", "The same as Torch7 would have run it",
        (
            "naive-fc", "initialized-fc", "paper", "naive-fc-torch7", "feature-extractor-torch7",
            "initialized-fc-torch7", "conv1-naive-torch7", "paper-torch7",
        ),
        "The paper does not say how many images a step had, nor what fixed BatchNorms did. By its tools' defaults: 32, "
        "and the batch's own statistics. The scaled filters have no gain.", least=4,
    ),
    CurveFigure(
        "first layer", "Other ways to make and train the first layer",
        ("paper", "torch7-raw", "antialias", "pi-resize", "pullback", "conv1-frozen", "conv1-batch"),
        "Section 3.4 scales the filters without the gain that they get in paper and conv1-naive here (without it: "
        "torch7-raw) and has a blank one beside (conv1-blank); it does not say what BatchNorm does meanwhile.", least=2,
    ),
    CurveFigure(
        "beyond", "Beyond the paper: what learns, and how far",
        ("paper", "per-layer-lr", "layer-decay", "surgical", "l2-sp", "gradual", "test-size"),
        "Its section 6 asks for individual learning rates and staged freezing; the others are fixed points.", least=2,
    ),
    CurveFigure(
        "recipes", "Beyond the paper: other recipes, other starts",
        ("paper", "impatient", "one-cycle", "modern", "known-head", "from-scratch"),
        "Its rule lowers the rate when the error stalls; all its systems begin with an ImageNet network.", least=2,
    ),
    CurveFigure(
        "shortcuts", "With shortcuts and without",
        ("naive-fc", "initialized-fc", "plain-naive-fc", "plain-initialized-fc"),
        "Section 6 asks whether residual connections make fine-tuning more efficient, and whether they amplify the "
        "harm of a poor initialisation: how far the naive way falls behind the staged one, with them and without.",
        least=3,
    ),
)  # fmt: skip


def draw_curves(figure: CurveFigure, systems: dict[str, list[Trained]], path: Path) -> Path | None:
    """The figure as a PNG, mean over seeds with their range; None where too few of its systems have an epoch."""
    there = {name: [run for run in systems.get(name, []) if run.epochs] for name in figure.systems}
    there = {name: runs for name, runs in there.items() if runs}
    if len(there) < figure.least:
        return None
    canvas, (left, right) = text_figure(13.0, 5.2, columns=2, widths=(3, 2))
    size, unit = unit_for(max(run.spent()[-1] for runs in there.values() for run in runs if run.flop))
    borders = {}
    for colour, (name, runs) in zip(COLOURS[: len(there)], there.items(), strict=True):
        longest = max(runs, key=lambda run: len(run.epochs))
        errors = _errors(runs, len(longest.epochs))
        at = [record["epoch_total"] for record in longest.epochs]
        over = 100 - len(at)  # shared stages are the same curve: the shorter one lies on top
        for axes, x in ((left, at), (right, [spent / size for spent in longest.spent()])):
            axes.plot(
                x, errors.mean(axis=0), color=colour, lw=2, marker="o", ms=3.5, label=_label(name, runs), zorder=over
            )
            axes.fill_between(x, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.15, lw=0)
        for before, after in zip(longest.epochs, longest.epochs[1:], strict=False):
            if before["stage"] != after["stage"]:
                borders.setdefault(before["epoch_total"] + 0.5, []).append(colour)
    for x, colours in borders.items():
        left.axvline(x, color=colours[0] if len(colours) == 1 else BORDER, lw=1.0, ls="--", zorder=0)
    if all(run.real for runs in there.values() for run in runs):
        for label, error in figure.lines:
            left.axhline(error, color=PAPER, lw=1.2, ls=":")
            left.annotate(
                f"{label}: {error:g} %",
                (0.01, error),
                xycoords=("axes fraction", "data"),
                va="bottom",
                color=PAPER,
                fontsize=9,
            )
    left.set(xlabel="epoch (all stages; dashed: a stage ends)", ylabel="validation top-1 error, centre crop (%)")
    right.set(xlabel=f"arithmetic of training so far ({unit})")
    left.set_title(f"{figure.title}: by epoch")
    right.set_title("the same, by arithmetic")
    for axes in (left, right):
        axes.grid(axis="y", color="#e4e4e4", lw=0.8)
        axes.set_xlim(left=0)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9.5)
    return save_figure(canvas, path)


def _errors(runs: list[Trained], length: int) -> np.ma.MaskedArray:
    """[runs, epochs] of centre-crop errors in %, masked where a run has none."""
    rows = np.full((len(runs), length), np.nan)
    for row, run in zip(rows, runs, strict=True):
        row[: len(run.epochs)] = [np.nan if r["val_top1_err"] is None else r["val_top1_err"] for r in run.epochs]
    return np.ma.masked_invalid(rows)


def _label(name: str, runs: list[Trained]) -> str:
    fate = sorted({run.status for run in runs} - {"done"})
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    return legend_label(name) + seeds + (f" ({', '.join(fate)})" if fate else "")
