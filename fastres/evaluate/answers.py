"""From ranking scores to the likeliest classes of each image, and the columns and rows that a CSV file has of them."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

TOP = 5
PROBABLE = ("expsum", "softmax", "logit")  # the combinations of crops whose softmax is a probability


def likeliest(ranking: torch.Tensor, most: int = TOP) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranking scores f64 [N, C] -> probabilities f64 and classes i64 [N, min(most, C)], the best first.

    Of equal scores the lower class comes first, as `combining.rank_of_truth` counts them.
    """
    order = ranking.sort(dim=1, descending=True, stable=True).indices[:, :most]
    return ranking.softmax(1).gather(1, order), order


def words_of(classes: Sequence[tuple[str, str]]) -> list[str]:
    """What is shown of each class (id, name): its name, with the id behind it where two classes share the name."""
    count = Counter(name for _, name in classes)
    return [name if count[name] == 1 else f"{name} ({label})" for label, name in classes]


def columns(first: Sequence[str], top: int) -> list[str]:
    """`first`, then a class and its probability for each of the `top` answers."""
    return [*first, *(name for k in range(1, top + 1) for name in (f"answer {k}", f"probability {k}"))]


def row(first: Sequence[str], words: Sequence[str], classes: Sequence[int], probabilities: Sequence[float]) -> list:
    """One image's row under `columns`."""
    pairs = zip(classes, probabilities, strict=True)
    return [*first, *(cell for c, p in pairs for cell in (words[c], f"{p:.6g}"))]


def as_csv(rows: Iterable[Sequence]) -> bytes:
    """Rows as a CSV file has them, RFC 4180 but for the lines' ends; names that are no UTF-8 keep their bytes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def begins_with(content: bytes, first: Sequence[str]) -> bool:
    """Whether a file is such a CSV: its first columns are those of `columns(first, 1)`, or of `first` alone."""
    line = content.partition(b"\n")[0] + b"\n"
    known = as_csv([columns(first, 1)])[:-1]
    return line == known + b"\n" or line.startswith(known + b",")
