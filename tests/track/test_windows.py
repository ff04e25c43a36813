"""The dashboard's figures that no log has as such: each window's own loss, and the time left."""

import math
from pathlib import Path

import pytest

from fastres.model.flop import stage_flop
from fastres.schedules.paper import PAPER
from fastres.track.run_view import RunView
from fastres.track.time_left import costs, in_words, seconds_left
from fastres.track.windows import window_losses


def step(images, loss, **more):
    return {"event": "step", "images_seen": images, "train_loss": loss, **more}


def epoch(images, loss, **more):
    return {"event": "epoch", "images_seen": images, "train_loss": loss, **more}


# Batches of 10, a look after the first step and each fifth, 12 steps an epoch: as train/run.py logs them.
LOG = [
    step(10, 9.0), step(50, 5.0), step(100, 4.0), epoch(120, 3.5),
    step(130, 3.0), step(170, 2.0), step(220, 1.5), epoch(240, 1.25),
]  # fmt: skip


def test_window_losses_by_hand():
    """50 images of mean 5, then (100 x 4 - 50 x 5) / 50 = 3; the last 20 join them: (120 x 3.5 - 50 x 5) / 70."""
    ends, losses = window_losses(LOG)
    assert ends == [50, 120, 170, 240]
    assert losses == pytest.approx([5.0, (420 - 250) / 70, 2.0, (150 - 100) / 70])
    weights = [50, 70, 50, 70]
    whole = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    assert whole == pytest.approx(120 * 3.5 + 120 * 1.25), "nothing is left out, nothing counts twice"


@pytest.mark.parametrize(
    ("points", "ends", "losses"),
    [
        ([], [], []),
        (LOG[:1], [10], [9.0]),  # the very first look
        (LOG[:2], [50], [5.0]),
        (LOG[:3], [50, 100], [5.0, 3.0]),  # live, killed or stopped in mid-epoch
        (LOG[:5], [50, 120], [5.0, 170 / 70]),  # the look after one step waits for the next
        ([epoch(120, 3.5), epoch(240, 1.25)], [120, 240], [3.5, 1.25]),  # a log that was restored
        ([step(10, 9.0), epoch(40, 3.0), step(50, 2.0), epoch(80, 1.0)], [40, 80], [3.0, 1.0]),  # short epochs
        ([step(50, 5.0), step(60, 4.5), epoch(60, 4.5)], [60], [4.5]),  # a look at the epoch's last step
        ([{"event": "epoch", "images_seen": 120}, step(170, 2.0)], [170], [2.0]),
    ],
)
def test_logs_of_other_lengths(points, ends, losses):
    found = window_losses(points)
    assert found == (ends, pytest.approx(losses))


def test_what_is_not_finite_is_a_gap():
    _, losses = window_losses([*LOG[:4], step(170, None)])
    assert losses[:2] == pytest.approx([5.0, 170 / 70]) and math.isnan(losses[2])


def test_logs_of_real_runs_add_up():
    """An old run's, and whatever they are cut to, as a run that was killed leaves them."""
    from fastres.track.log import read_log

    records = read_log(Path(__file__).parents[1] / "train" / "before_the_move" / "log.jsonl")
    points = [record for record in records if record["event"] in ("step", "epoch")]
    epochs = [record for record in points if record["event"] == "epoch"]
    assert len(epochs) > 1
    for cut in range(len(points) + 1):
        ends, losses = window_losses(points[:cut])
        assert ends == sorted(set(ends))
    sums = [loss * (end - before) for before, end, loss in zip([0, *ends], ends, losses)]
    sizes = [b["images_seen"] - a for a, b in zip([0, *(e["images_seen"] for e in epochs)], epochs)]
    last = len([end for end in ends if end <= epochs[-1]["images_seen"]])
    expected = sum(e["train_loss"] * size for e, size in zip(epochs, sizes, strict=True))
    assert sum(sums[:last]) == pytest.approx(expected)


STAGES = [
    {"name": "fc", "epochs": 2, "train": ["fc.*"], "upscale": 4, "surgery": ["fc"]},
    {"name": "all", "epochs": 3, "train": ["*"], "upscale": 4, "surgery": []},
    {"name": "conv1", "epochs": 2, "train": ["conv1.*"], "upscale": 1, "surgery": ["stem:torch7"]},
]


def run_of(*records, live=True, status=None, stages=STAGES):
    summary = {"status": status} if status else {}
    return RunView(Path("run"), "run", {"schedule": {"stages": stages}}, summary, list(records), live)


def done(stage, total, train_s, val_s=1.0):
    return epoch(100 * total, 1.0, stage=stage, epoch_total=total, train_s=train_s, val_s=val_s)


def test_time_left_by_hand():
    """100 images an epoch. The head's take 10 s, everything 30 (three passes for one), the stem 20 (two of them)."""
    start = {"event": "start", "images": 100}
    assert seconds_left(run_of(start)) is None
    warm = step(20, 1.0, stage=0)
    assert seconds_left(run_of(start, warm)) is None, "no speed yet"
    # 10 s an epoch at 10 img/s, a fifth done; validation unknown; three of everything, two of the stem
    measured = step(20, 1.0, stage=0, img_per_s=10.0)
    assert seconds_left(run_of(start, measured)) == pytest.approx(2 * 10 - 2 + 3 * 30 + 2 * 20)
    assert seconds_left(run_of(measured)) is None, "an older run, which does not say how many images"
    after = [done(0, 1, 10.0), done(0, 2, 10.0)]
    rest = 3 * (30 + 1) + 2 * (20 + 1)
    assert seconds_left(run_of(*after)) == pytest.approx(rest)
    # a half of the first epoch of everything, at 4 img/s: 25 s an epoch, and the stem follows from that
    halfway = step(250, 1.0, stage=1, img_per_s=4.0)
    left = 2.5 * 25 + 3 * 1 + 2 * (25 * 2 / 3 + 1)
    assert seconds_left(run_of(*after, halfway)) == pytest.approx(left)
    assert seconds_left(run_of(*after, halfway, live=False, status="preempted")) == pytest.approx(left)
    assert seconds_left(run_of(*after, halfway, live=False)) == pytest.approx(left), "killed"
    for over in ("done", "diverged"):
        assert seconds_left(run_of(*after, halfway, live=False, status=over)) is None
    whole = [*after, *(done(1, k, 40.0, 2.0) for k in (3, 4, 5)), *(done(2, k, 7.0) for k in (6, 7))]
    assert seconds_left(run_of(*whole)) == 0
    assert seconds_left(run_of(*whole[:6])) == pytest.approx(7 + 1), "the stage's own epochs, once it has one"


def test_time_left_of_a_log_without_particulars():
    """Of an older version: no upscale, no patterns, no seconds of validation."""
    plain = [{"name": "a", "epochs": 2}, {"name": "b", "epochs": 1}]
    record = done(0, 1, 10.0)
    del record["val_s"], record["images_seen"]
    assert seconds_left(run_of(record, stages=plain)) == pytest.approx(10 + 10)
    assert seconds_left(run_of(record, stages=[])) is None


def test_stages_cost_what_torch_counts():
    """Within a tenth, for the paper's four."""
    schedule = PAPER.to_dict()
    counted = stage_flop(schedule, classes=200, side=64)
    said = [training for training, _ in costs(schedule["stages"])]
    for count, cost in zip(counted, said, strict=True):
        assert cost / said[0] == pytest.approx(count / counted[0], rel=0.1)


def test_words():
    words = [in_words(seconds) for seconds in (None, 0.0, 0.2, 89, 91, 3000, 5400, 9000)]
    assert words == [
        None,
        "the twelve views at the end",
        "about 1 s",
        "about 89 s",
        "about 2 min",
        "about 50 min",
        "about 1.5 h",
        "about 2.5 h",
    ]
