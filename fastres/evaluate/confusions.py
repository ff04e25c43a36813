"""Which classes are taken for which: counted, the largest listed, the classes ordered so that groups stand together."""

import numpy as np


def counted(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """i64 [C, C]: how many images of the row's class got the column's for an answer. Labels and answers: i64 [N]."""
    return np.bincount(labels * classes + answers, minlength=classes * classes).reshape(classes, classes)


def largest(counts: np.ndarray) -> list[tuple[int, int, int, float]]:
    """(truth, answer, images, their share of the truth's images in %) of every confusion, the commonest first; of as
    many images, that of the larger share, then by class."""
    truth, answer = np.nonzero(counts * (1 - np.eye(len(counts), dtype=counts.dtype)))
    images = counts[truth, answer]
    share = 100.0 * images / counts.sum(1)[truth]
    order = np.lexsort((answer, truth, -share, -images))
    return [(int(truth[k]), int(answer[k]), int(images[k]), float(share[k])) for k in order]


def likeness(counts: np.ndarray) -> np.ndarray:
    """f64 [C, C], symmetric, 0 on the diagonal: the mean of the shares in which each of two classes is taken for the
    other."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    alike = (shares + shares.T) / 2
    np.fill_diagonal(alike, 0.0)
    return alike


def block_order(counts: np.ndarray) -> list[int]:
    """The classes in an order in which those that are taken for each other stand side by side.

    Hierarchical clustering by average linkage of their `likeness`: the two most alike groups are joined until none are
    alike, each time at the ends that are most alike. Groups stand by size, classes of no group at the end as they were.
    """
    alike = likeness(counts)
    between, groups = alike.copy(), [[c] for c in range(len(counts))]
    np.fill_diagonal(between, -1.0)
    for _ in range(len(counts) - 1):
        a, b = divmod(int(between.argmax()), len(counts))
        if between[a, b] <= 0:
            break
        sizes = len(groups[a]), len(groups[b])
        mean = (sizes[0] * between[a] + sizes[1] * between[b]) / sum(sizes)
        groups[a], groups[b] = _joined(groups[a], groups[b], alike), []
        between[a], between[:, a] = mean, mean
        between[b], between[:, b], between[a, a] = -1.0, -1.0, -1.0  # which is never joined again
    return [c for group in sorted(groups, key=len, reverse=True) for c in group]


def _joined(one: list[int], other: list[int], alike: np.ndarray) -> list[int]:
    """Both groups as one, either of them turned round where that brings likelier neighbours together."""
    ways = [(a, b) for a in (one, one[::-1]) for b in (other, other[::-1])]
    first, second = max(ways, key=lambda way: alike[way[0][-1], way[1][0]])
    return first + second
