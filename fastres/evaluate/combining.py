"""From class scores of several views to one answer per image, and from answers to errors (paper, sections 4.2, 5.3)."""

import torch
from torch.nn import functional

from fastres.machine.errors import UsageError
from fastres.views import TWELVE_VIEWS

# Which of the twelve views each crop method of Table 1 uses.
METHODS = {
    "full": [i for i, view in enumerate(TWELVE_VIEWS) if view.whole and not view.mirrored],
    "centre": [0],
    "10-crop": [i for i, view in enumerate(TWELVE_VIEWS) if not view.whole],
    "12-crop": list(range(12)),
}
ALL = "12-crop"  # the method that uses every view
COMBINATIONS = ("expsum", "softmax", "logit", "max", "vote")
TOP = (1, 5)


def combine(scores: torch.Tensor, how: str) -> torch.Tensor:
    """Scores of several views f32 [N, V, C] -> one ranking score per class f64 [N, C].

    expsum   log of the sum of e^score: the paper's choice, computed without overflow
    softmax  log of the mean class probability
    logit    mean score
    max      highest score of any view
    vote     views whose first choice the class is; ties are broken by expsum
    """
    scores = scores.double()
    if how == "expsum":
        return scores.logsumexp(1)
    if how == "softmax":
        return scores.log_softmax(2).logsumexp(1)
    if how == "logit":
        return scores.mean(1)
    if how == "max":
        return scores.amax(1)
    if how == "vote":
        votes = functional.one_hot(scores.argmax(2), scores.shape[2]).sum(1)  # scatter_add_ may sum in any order
        summed = scores.logsumexp(1)
        # the place by expsum, scaled below one vote, orders classes that have equally many; of equal ones the first
        place = summed.argsort(dim=1, descending=True, stable=True).argsort(1).double()
        return (votes + 1 - (place + 1) / scores.shape[2]).where(~summed.isnan(), torch.nan)
    raise UsageError(f"--combine {how}: unknown, expected one of {', '.join(COMBINATIONS)}")


def top_errors(ranking: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Ranking scores [N, C] and labels i64 [N] -> top-1 and top-5 error in %."""
    return _named(error_rates(ranking, labels).tolist())


def error_rates(ranking: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same as f64 [2] where both arguments are: on a GPU nothing is read back."""
    rank = rank_of_truth(ranking, labels)
    return torch.stack([100.0 * (rank >= k).double().mean() for k in TOP])


def _named(rates: list[float]) -> dict[str, float]:
    return {f"top{k}": rate for k, rate in zip(TOP, rates, strict=True)}


def rank_of_truth(ranking: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many classes rank before each image's true one, i64 [N]: 0 is a right answer, below 5 a right top-5.

    A class ranks before the true one if its score is higher, or equal with a lower index (so an all-equal output, or
    one of NaN, earns nothing by luck). With fewer than five classes top-5 is over all of them.
    """
    true = ranking.gather(1, labels[:, None])
    index = torch.arange(ranking.shape[1], device=ranking.device)
    before = (ranking > true) | ((ranking == true) & (index < labels[:, None])) | ranking.isnan()
    return before.sum(1)


def error_table(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of the twelve views f32 [N, 12, C] -> {combination: {method: {"top1": %, "top5": %}}}.

    In float64, on the device where both arguments are: a GPU's evaluation would wait seconds for a CPU's arithmetic.
    What it found is read back at once.
    """
    scores = scores.double()
    kinds = [(how, method) for how in COMBINATIONS for method in METHODS]
    found = torch.stack([error_rates(combine(scores[:, METHODS[method]], how), labels) for how, method in kinds])
    rates = dict(zip(kinds, map(_named, found.tolist()), strict=True))
    return {how: {method: rates[how, method] for method in METHODS} for how in COMBINATIONS}
