"""Twelve crops only where one leaves the answer open: an image whose centre crop is sure enough keeps that answer.

The margin of an image is how far its best class's score lies above the second's in the centre crop: the logarithm of
the ratio of their probabilities. Where it is below the threshold, the eleven other views are made. A labelled split,
scored in all views, says what each threshold costs; the one chosen has the fewest views with an error of at most SLACK
points more than all views have, there and at every larger threshold.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from fastres import views
from fastres.data.batch import Split
from fastres.evaluate import combining
from fastres.evaluate.scores import scores_on_device
from fastres.machine.console import Progress
from fastres.machine.device import Precision
from fastres.machine.processes.world import World

FIND = "find"  # --gate without a number
SLACK = 0.1  # points of top-1 error
CENTRE, TWELVE = combining.METHODS["centre"], combining.METHODS["12-crop"]


@dataclass(frozen=True)
class Gate:
    """What a threshold gives on N labelled images; errors are top-1, in %.

    margin     images below it get twelve views; None: no margin spares any
    views      made, per image
    error      with the gate; `all_views` and `centre` without
    held_out   the gate's error where each half of the images is judged by the threshold of the other; and the views
    """

    margin: float | None
    views: float
    error: float
    all_views: float
    centre: float
    held_out: float
    held_out_views: float

    def as_text(self) -> str:
        if self.margin is None:
            return "no image can do without the twelve crops: the error would grow at any margin"
        fewer = len(TWELVE) / self.views
        return (
            f"twelve crops only where the centre's margin is below {self.margin!r}: {self.views:.2f} views an image, "
            f"{fewer:.1f} times fewer; top-1 error {self.error:.2f} %, with all views {self.all_views:.2f}, the centre "
            f"alone {self.centre:.2f}. Each half by the other half's margin: {self.held_out_views:.2f} views, "
            f"{self.held_out:.2f} %"
        )


def margins(centre: torch.Tensor) -> torch.Tensor:
    """Scores of the centre crop [N, C] -> f64 [N], from 0; infinite where there is one class only."""
    best = centre.double().topk(min(2, centre.shape[1]), dim=1).values
    return best[:, 0] - best[:, 1] if best.shape[1] == 2 else torch.full((len(centre),), torch.inf)


def find_gate(scores: torch.Tensor, labels: torch.Tensor, how: str = "expsum") -> Gate:
    """The gate of scores f32 [N, 12, C] of all views and labels i64 [N], `how` they are combined."""
    margin = margins(scores[:, CENTRE[0]]).cpu().numpy()
    wrong = {
        name: (combining.rank_of_truth(combining.combine(scores[:, chosen], how), labels) > 0).cpu().numpy()
        for name, chosen in (("centre", CENTRE), ("all", TWELVE))
    }
    half = np.arange(len(margin)) % 2 == 1
    judged = [(half, ~half), (~half, half)] if len(margin) > 1 else [(half | True, half | True)]
    held = np.zeros(len(margin), bool)
    for ours, others in judged:
        found = _threshold(margin[others], wrong["centre"][others], wrong["all"][others])
        held[ours] = margin[ours] < found
    threshold = _threshold(margin, wrong["centre"], wrong["all"])
    gated = margin < threshold
    return Gate(
        margin=threshold if np.isfinite(threshold) else None,
        views=views_per_image(gated),
        error=_error(gated, wrong),
        all_views=100.0 * float(wrong["all"].mean()),
        centre=100.0 * float(wrong["centre"].mean()),
        held_out=_error(held, wrong),
        held_out_views=views_per_image(held),
    )


def _threshold(margin: np.ndarray, centre: np.ndarray, every: np.ndarray) -> float:
    """The smallest margin from which on no larger one has more than SLACK points of error above all views'."""
    order = np.argsort(margin, kind="stable")
    # wrong[k]: images answered wrongly when the k with the smallest margins get all views
    gained = np.concatenate([[0], np.cumsum(every[order].astype(np.int64) - centre[order])])
    wrong = int(centre.sum()) + gained
    good = wrong <= int(every.sum()) + SLACK / 100 * len(margin) + 1e-9
    bounds = np.concatenate([margin[order], [np.inf]])  # gating the k smallest: the threshold is the next margin
    possible = np.concatenate([[True], bounds[1:] > bounds[:-1]])  # of equal margins all are gated, or none
    bad = np.flatnonzero(possible & ~good)
    first = 0 if len(bad) == 0 else int(np.flatnonzero(possible & (np.arange(len(bounds)) > bad[-1]))[0])
    return _between(float(bounds[first - 1]), float(bounds[first])) if first else 0.0


def _between(low: float, high: float) -> float:
    """The number of fewest digits above `low` and below `high`, near their middle: what is printed can be typed, and no
    image's margin lies near it. `high` where there is none, or where it is infinite."""
    middle = (low + high) / 2
    shorter = (float(f"{middle:.{digits}g}") for digits in range(2, 17)) if np.isfinite(high) else ()
    return next((number for number in shorter if low < number < high), high)


def _error(gated: np.ndarray, wrong: dict[str, np.ndarray]) -> float:
    return 100.0 * float(np.where(gated, wrong["all"], wrong["centre"]).mean())


def views_per_image(gated: np.ndarray | torch.Tensor) -> float:
    """The views that were made, by which images got all of them, bool [N]."""
    return 1 + (len(TWELVE) - 1) * float(np.asarray(gated).mean())


def margin_or_find(text: str) -> float | str:
    """evaluate's --gate: a number, or FIND, for argparse."""
    return text if text == FIND else margin(text)


def margin(text: str) -> float:
    """--gate's number, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a margin of scores from 0 up, such as 2.5")
    return number


class _Part:
    """Some samples of a split, as a split: id k is the k-th of `ids`."""

    def __init__(self, data: Split, ids: np.ndarray) -> None:
        self.ids, self._data, self.device, self.labels = ids, data, data.device, data.labels

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, ids: np.ndarray, batch_size: int):
        return self._data.batches(self.ids[ids], batch_size)


def gated_ranking(
    network: nn.Module,
    data: Split,
    plan: views.TestPlan,
    precision: Precision,
    margin: float,
    how: str = "expsum",
    world: World | None = None,
    progress: Progress | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranking scores f64 [N, C] by `plan`'s twelve views where the centre's margin is below `margin`, by the centre
    alone elsewhere; and which images had them, bool [N]. Both on the CPU. progress: counts each image once, by its
    centre crop. The rest: see scores_on_device.
    """
    world = world or World(data.device)

    def scored(part: Split, chosen: list[int], label: str, shown: Progress | None = None) -> torch.Tensor:
        some = replace(plan, views=tuple(plan.views[i] for i in chosen))
        return scores_on_device(network, part, some, precision, label=label, world=world, progress=shown).cpu()

    centre = scored(data, CENTRE, "centre crops", progress)
    gated = margins(centre[:, 0]) < margin
    ranking = combining.combine(centre, how)
    hard = gated.nonzero()[:, 0].numpy()
    if len(hard):
        rest = scored(_Part(data, hard), [i for i in TWELVE if i not in CENTRE], "other crops")
        ranking[hard] = combining.combine(torch.cat([centre[hard], rest], dim=1), how)
    return ranking, gated
