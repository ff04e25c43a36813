"""How long a run still takes: the epochs that its schedule has left, at the speeds measured so far.

A stage with an epoch done takes their median again; one that has begun, the img/s of its newest step. What has not
begun is scaled from the newest stage of its size with a figure (of any, where none is) by the arithmetic of the two, as
far as a schedule tells it: the forward pass grows with the crop's area, 16-fold after surgery on the stem, which takes
a 7×7 stem's two halvings away; backward costs as much again for the activations and once more for the weights. torch
counts 1 : 1.9 : 2.8 for the paper's stages where this says 1 : 2 : 3. Machines need not follow arithmetic, so it is an
estimate, and said to be one.
"""

import statistics

from fastres.track.run_view import RunView

HEAD = "fc."
STEM = "stem:"
SHORTEST = 1.0  # seconds
TEST_VIEWS = 12  # of the evaluation at a run's end, beside the one of each validation


def seconds_left(run: RunView) -> float | None:
    """Seconds of training and validation that `run` still needs; None where nothing has been measured, or where it
    is over. The twelve views at the end come on top."""
    stages = run.schedule.get("stages", [])
    if run.status in ("done", "diverged") or not stages:
        return None
    done = by_stage(stages, run.epochs)
    measured = _measured(run, done)
    if not measured:
        return None
    newest = max(measured)
    left = seconds_of(stages, [len(epochs) for epochs in done], measured)
    return max(0.0, left - _fraction_done(run, newest) * measured[newest][0])


def after_epochs(stages: list[dict], epochs: list[dict], *, evaluates: bool = True) -> float:
    """The same for a run between two epochs, of which `epochs` are its log's records, at least one; with the twelve
    views at the end, where it `evaluates` them, at what validation takes for one."""
    done = by_stage(stages, epochs)
    measured = {index: speeds(mine) for index, mine in enumerate(done) if mine}
    evaluation = TEST_VIEWS * _like(len(stages) - 1, stages, measured)[1] if evaluates else 0.0
    return seconds_of(stages, [len(mine) for mine in done], measured) + evaluation


def seconds_of(stages: list[dict], done: list[int], measured: dict[int, tuple[float, float]]) -> float:
    """Of the epochs that are not `done` (a count by stage); `measured`: seconds of training and of validation of an
    epoch, by stage."""
    return sum(
        (stage["epochs"] - done[index]) * sum(_like(index, stages, measured))
        for index, stage in enumerate(stages)
        if stage["epochs"] > done[index]
    )


def _like(index: int, stages: list[dict], measured: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """A stage's seconds: its own, or those of the newest measured one of its size (else of any), by their costs."""
    same = [found for found in measured if stages[found].get("upscale") == stages[index].get("upscale")]
    of = index if index in measured else max(same or measured)
    cost = costs(stages)
    train_s, val_s = (
        seconds * here / there for seconds, here, there in zip(measured[of], cost[index], cost[of], strict=True)
    )
    return train_s, val_s


def by_stage(stages: list[dict], epochs: list[dict]) -> list[list[dict]]:
    return [[epoch for epoch in epochs if epoch["stage"] == index] for index in range(len(stages))]


def speeds(epochs: list[dict]) -> tuple[float, float]:
    """Seconds of training and of validation of a stage's epoch: the median of those it had."""
    train_s, val_s = ([epoch.get(name, 0.0) for epoch in epochs] for name in ("train_s", "val_s"))
    return statistics.median(train_s), statistics.median(val_s)


def in_words(seconds: float | None) -> str | None:
    """Such as "about 12 min"; None for None."""
    if seconds is None:
        return None
    if seconds == 0:
        return "the twelve views at the end"
    if seconds < 90:
        return f"about {max(SHORTEST, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def costs(stages: list[dict]) -> list[tuple[float, float]]:
    """What an image costs in training and in validation, stage by stage, in a unit of no meaning."""
    found, zoom = [], 1.0
    for stage in stages:
        zoom = 16.0 if any(operation.startswith(STEM) for operation in stage.get("surgery", ())) else zoom
        whole = (8 / 7) ** 2 if stage.get("whole") else 1.0
        forward, learns = zoom * stage.get("upscale", 1) ** 2 * whole, stage.get("train", ["*"])
        passes = 1 if all(pattern.startswith(HEAD) for pattern in learns) else 3 if "*" in learns else 2
        found.append((forward * passes, forward))
    return found


def _measured(run: RunView, done: list[list[dict]]) -> dict[int, tuple[float, float]]:
    """(seconds of training, of validation) of one epoch of each stage that has a figure."""
    found = {index: speeds(epochs) for index, epochs in enumerate(done) if epochs}
    images, last = _images_of_an_epoch(run), run.points[-1] if run.points else {}
    speed = last.get("img_per_s")
    if images and speed and last["event"] == "step" and last["stage"] not in found:
        validation = found[max(found)][1] if found else 0.0
        found[last["stage"]] = (images / speed, validation)
    return found


def _images_of_an_epoch(run: RunView) -> int | None:
    """As the run says at its start; of an older version's, as its first epoch had. None before that."""
    said = [record["images"] for record in run.records if record["event"] == "start" and "images" in record]
    counted = [epoch["images_seen"] / epoch["epoch_total"] for epoch in run.epochs if "images_seen" in epoch]
    return next(iter([*said[-1:], *counted]), None)


def _fraction_done(run: RunView, stage: int) -> float:
    """Of the epoch that the run stands in."""
    images, last = _images_of_an_epoch(run), run.points[-1] if run.points else {}
    if not images or last.get("event") != "step" or last.get("stage") != stage:
        return 0.0
    ends = [epoch["images_seen"] for epoch in run.epochs if "images_seen" in epoch]
    return min(1.0, (last["images_seen"] - (ends[-1] if ends else 0)) / images)
