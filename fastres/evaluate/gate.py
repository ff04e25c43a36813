"""Views until the answer is sure: an image gets the centre crop, then more of the twelve, until a class leads enough.

After k views the margin of an image is how far its best class's combined score lies above the second's (expsum: the
logarithm of the ratio of their summed e^score). The k views together lead by k times that, which the 12 - k to come
would have to take back. So an image stops after k views where

    margin * 11 k / (12 - k) >= the threshold,

which for the centre crop alone is: where its margin is at least the threshold. A labelled split, scored in all views,
says what each threshold costs; the one chosen has the fewest views with an error of at most SLACK points more than all
views have, there and at every larger threshold.
"""

import argparse
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn

from fastres import views
from fastres.data.batch import Split
from fastres.evaluate import combining
from fastres.evaluate.scores import folded, scores_on_device
from fastres.machine.console import Progress
from fastres.machine.device import Precision
from fastres.machine.processes.world import World

FIND = "find"  # --gate without a number
SLACK = 0.1  # points of top-1 error
CENTRE, TWELVE = combining.METHODS["centre"], combining.METHODS["12-crop"]
# Which views follow which: the centre, the whole image mirrored, then pairs of unlike ones, a mirrored one in each.
ROUNDS = (0,), (11,), (10, 5), (1, 9), (4, 6), (2, 8), (3, 7)
ORDER = [view for chosen in ROUNDS for view in chosen]
AFTER = tuple(int(k) for k in np.cumsum([len(chosen) for chosen in ROUNDS]))  # views after each round: 1, 2, 4 .. 12


@dataclass(frozen=True)
class Gate:
    """What a threshold gives on N labelled images; errors are top-1, in %.

    margin     what the centre's margin has to be at least for no further view; None: no margin spares any
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

    @classmethod
    def of(cls, summary: dict) -> "Gate | None":
        """From a run's summary; None where it has none, one of the versions that knew two rounds alone, or damage."""
        plain = summary.get("gate")
        if not isinstance(plain, dict) or plain.get("after") != list(AFTER):
            return None
        fields = {key: value for key, value in plain.items() if key != "after"}
        numbers = [value for key, value in fields.items() if key != "margin" or value is not None]
        good = fields.keys() == cls.__annotations__.keys() and all(type(n) in (int, float) for n in numbers)
        return cls(**fields) if good else None

    def plain(self) -> dict:
        """For JSON; `after` says after how many views an image may stop."""
        return {**asdict(self), "after": list(AFTER)}

    def as_text(self) -> str:
        if self.margin is None:
            return "no image can do without the twelve crops: the error would grow at any margin"
        fewer = len(TWELVE) / self.held_out_views
        return (
            f"the centre alone where its margin is at least {self.margin!r}, elsewhere further crops until they lead "
            f"enough: {self.views:.2f} views an image; top-1 error {self.error:.2f} %, with all views "
            f"{self.all_views:.2f}, the centre alone {self.centre:.2f}. Each half by the other half's margin: "
            f"{self.held_out_views:.2f} views, {fewer:.1f} times fewer than twelve, {self.held_out:.2f} %"
        )


def margins(scores: torch.Tensor) -> torch.Tensor:
    """Scores f32 [N, k, C] of the first k views in ORDER -> f64 [N], from 0: what is compared with the threshold.

    Infinite where there is one class only.
    """
    seen, classes = scores.shape[1:]
    best = combining.combine(scores, "expsum").topk(min(2, classes), dim=1).values
    margin = best[:, 0] - best[:, 1] if classes > 1 else torch.full((len(best),), torch.inf).to(best)
    return margin * ((len(TWELVE) - 1) * seen / (len(TWELVE) - seen))


def find_gate(scores: torch.Tensor, labels: torch.Tensor, how: str = "expsum") -> Gate:
    """The gate of scores f32 [N, 12, C] of all views and labels i64 [N], `how` they are combined."""
    margin = torch.stack([margins(scores[:, ORDER[:seen]]) for seen in AFTER[:-1]], 1).cpu().numpy()

    def errs(seen: int) -> torch.Tensor:
        return combining.rank_of_truth(combining.combine(scores[:, ORDER[:seen]], how), labels) > 0

    wrong = torch.stack([errs(seen) for seen in AFTER], 1).cpu().numpy()
    half = np.arange(len(margin)) % 2 == 1
    judged = [(half, ~half), (~half, half)] if len(margin) > 1 else [(half | True, half | True)]
    held = np.zeros(len(margin), np.int64)
    for ours, others in judged:
        held[ours] = _rounds(margin[ours], _threshold(margin[others], wrong[others]))
    threshold = _threshold(margin, wrong)
    found = _rounds(margin, threshold)
    return Gate(
        margin=threshold if np.isfinite(threshold) else None,
        views=_views(found),
        error=_error(wrong, found),
        all_views=100.0 * float(wrong[:, -1].mean()),
        centre=100.0 * float(wrong[:, 0].mean()),
        held_out=_error(wrong, held),
        held_out_views=_views(held),
    )


def _rounds(margin: np.ndarray, threshold: float) -> np.ndarray:
    """Margins f64 [N, R - 1] after all rounds but the last -> in which round each image stops, i64 [N], from 0."""
    return (np.maximum.accumulate(margin, axis=1) < threshold).sum(1)


def _threshold(margin: np.ndarray, wrong: np.ndarray) -> float:
    """The smallest threshold from which on no larger one has more than SLACK points of error above all views'.

    margin f64 [N, R - 1], wrong bool [N, R] after each round
    """
    # a threshold above an image's margin of a round, and of all rounds before, sends it on to the next
    passing = np.maximum.accumulate(margin, axis=1).ravel()
    order = np.argsort(passing, kind="stable")
    change = np.diff(wrong.astype(np.int64), axis=1).ravel()[order]
    # answers[k]: images answered wrongly when the k smallest margins are passed
    answers = int(wrong[:, 0].sum()) + np.concatenate([[0], np.cumsum(change)])
    good = answers <= int(wrong[:, -1].sum()) + SLACK / 100 * len(margin) + 1e-9
    bounds = np.concatenate([passing[order], [np.inf]])  # passing the k smallest: the threshold is the next margin
    possible = np.concatenate([[True], bounds[1:] > bounds[:-1]])  # of equal margins all are passed, or none
    bad = np.flatnonzero(possible & ~good)
    first = 0 if len(bad) == 0 else int(np.flatnonzero(possible & (np.arange(len(bounds)) > bad[-1]))[0])
    return _between(float(bounds[first - 1]), float(bounds[first])) if first else 0.0


def _between(low: float, high: float) -> float:
    """The number of fewest digits above `low` and below `high`, near their middle: what is printed can be typed, and no
    image's margin lies near it. `high` where there is none, or where it is infinite."""
    middle = (low + high) / 2
    shorter = (float(f"{middle:.{digits}g}") for digits in range(2, 17)) if np.isfinite(high) else ()
    return next((number for number in shorter if low < number < high), high)


def _error(wrong: np.ndarray, rounds: np.ndarray) -> float:
    return 100.0 * float(wrong[np.arange(len(wrong)), rounds].mean())


def _views(rounds: np.ndarray) -> float:
    """Views per image, by the round in which each one stops, i64 [N]."""
    return float(np.take(AFTER, rounds).mean())


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


class _Uncounted:
    """In place of a Progress that has counted the images already."""

    def update(self, units: float) -> None: ...


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
) -> tuple[torch.Tensor, float]:
    """Ranking scores f64 [N, C], on the CPU, by as many of `plan`'s twelve views as each image needs at the threshold
    `margin`; and the views that were made, per image. progress: counts each image once, by its centre crop. The rest:
    see scores_on_device.
    """
    world = world or World(data.device)
    world.same_statistics(network)
    network = folded(network, precision)
    rounds, live = np.zeros(len(data), np.int64), np.arange(len(data))
    ranking = scores = torch.empty(0)
    for number, chosen in enumerate(ROUNDS):
        some = replace(plan, views=tuple(plan.views[view] for view in chosen))
        label, counted = ("further crops", progress and _Uncounted()) if number else ("centre crops", progress)
        new = scores_on_device(
            network, _Part(data, live), some, precision, label=label, world=world, progress=counted
        ).cpu()
        scores = torch.cat([scores, new], dim=1) if number else new
        combined = combining.combine(scores, how)
        ranking = ranking.index_copy(0, torch.from_numpy(live), combined) if number else combined
        if number == len(ROUNDS) - 1:
            break
        # the first process decides: of two kinds of processor one may round a margin to the threshold, one not
        unsure = world.from_first(lambda scores=scores: (margins(scores) < margin).nonzero()[:, 0].tolist())
        live, scores = live[unsure], scores[unsure]
        if len(live) == 0:
            break
        rounds[live] = number + 1
    return ranking, _views(rounds)
