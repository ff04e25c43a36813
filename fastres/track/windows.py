"""The training loss of each window of steps, from a log that holds the mean of the epoch so far.

A record after n images of its epoch has the mean m over them, so the window between two records has the mean
(n2 m2 - n1 m1) / (n2 - n1). Nothing else is needed of a log, so runs of older versions have it too.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

SHORT = 0.5  # of the longest window so far: a shorter one, such as the one step to the first look, joins its neighbour


def window_losses(points: Iterable[dict]) -> tuple[list[float], list[float]]:
    """(images_seen at the end of each window, mean loss in it in nats); a loss that is not finite leaves a gap.

    `points`: the records of log.jsonl on the axis of images, in order, as RunView.points has them. An epoch that was
    resumed goes on with its sum, so a window may lie across the place.
    """
    ends, losses, begun, longest = [], [], 0.0, 0.0
    for _, epoch in groupby(_by_epoch(points), key=lambda pair: pair[0]):
        records = [record for _, record in epoch if "train_loss" in record]
        marks = [(0.0, 0.0)]  # images of the epoch, sum of their losses
        for record in records:
            images, mean = record["images_seen"] - begun, record["train_loss"]
            if images > marks[-1][0]:  # the epoch's end may come with the last look
                marks.append((images, math.nan if mean is None else images * mean))
        longest = max([longest, *(b[0] - a[0] for a, b in zip(marks, marks[1:]))])
        over = bool(records) and records[-1]["event"] == "epoch"
        for (before, summed_before), (images, summed) in _windows(marks, SHORT * longest, over):
            ends.append(begun + images)
            losses.append((summed - summed_before) / (images - before))
        begun = records[-1]["images_seen"] if records else begun
    return ends, losses


def _by_epoch(points: Iterable[dict]) -> Iterable[tuple[int, dict]]:
    """Each record with the number of its epoch, which the record of its end closes."""
    number = 0
    for record in points:
        yield number, record
        number += record["event"] == "epoch"


def _windows(marks: Sequence[tuple], least: float, over: bool) -> list[tuple[tuple, tuple]]:
    """Neighbouring marks, `least` images apart or more. `over`: the last one is the epoch's end, which is always there
    and takes the place of one that is too near."""
    kept = [marks[0]]
    for mark in marks[1:]:
        far = mark[0] - kept[-1][0] >= least
        if not far and over and mark is marks[-1]:
            kept = [*kept[: max(1, len(kept) - 1)], mark]
        elif far:
            kept.append(mark)
    return list(zip(kept, kept[1:]))
