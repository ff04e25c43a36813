"""The time that a run still takes, from records as its log has them."""

import time

import pytest

from fastres.schedules.paper import PAPER
from fastres.stage.step import EagerStep
from fastres.track.log import read_log
from fastres.track.time_left import after_epochs, costs
from fastres.train.summary import wall_before
from tests.support.tiny_runs import train_tiny

STAGES = PAPER.to_dict()["stages"]  # head alone 5, all 10, first layer 4, all at a quarter of the side 13 epochs
COST = [training for training, _ in costs(STAGES)]


def epochs(stage: int, count: int, train_s: float, val_s: float = 0.0) -> list[dict]:
    return [{"stage": stage, "train_s": train_s, "val_s": val_s}] * count


def left(*records: list[dict], evaluates: bool = False) -> float:
    return after_epochs(STAGES, sum(records, []), evaluates=evaluates)


BEFORE = epochs(0, 5, 7.0) + epochs(1, 10, 70.0) + epochs(2, 4, 3.0)


def test_in_the_last_stage_it_is_the_median_of_its_epochs():
    own = epochs(3, 2, 10.0, 2.0) + epochs(3, 1, 99.0, 9.0)
    assert left(BEFORE, own) == pytest.approx(10 * 12)
    assert left(BEFORE, epochs(3, 13, 10.0, 2.0)) == 0
    assert left(BEFORE, epochs(3, 13, 10.0, 2.0), evaluates=True) == pytest.approx(24.0)


def test_stages_to_come_take_as_long_as_their_arithmetic():
    """From the head's epochs alone; each at its own count of operations."""
    expected = 3 * COST[0] + 10 * COST[1] + 4 * COST[2] + 13 * COST[3]
    assert left(epochs(0, 2, COST[0])) == pytest.approx(expected)


def test_a_stage_to_come_is_like_the_newest_of_its_size():
    """The last stage's speed is that of the first-layer stage, twice as fast here, not that of the stage before it."""
    found = left(epochs(0, 5, 1.0), epochs(1, 10, COST[1]), epochs(2, 3, COST[2] / 2))
    assert found == pytest.approx((1 * COST[2] + 13 * COST[3]) / 2)


def test_validation_is_counted_by_its_arithmetic():
    """After the surgery a sixteenth of the pixels, and the strides gone: the same; the evaluation is twelve of them."""
    found = left(epochs(0, 5, 0.0, 16.0), epochs(1, 9, 0.0, 16.0), evaluates=True)
    assert found == pytest.approx((1 + 4 + 13 + 12) * 16)


def test_a_schedule_of_one_stage():
    assert after_epochs(STAGES[:1], epochs(0, 1, 5.0, 1.0)) == pytest.approx(4 * 6 + 12)


def test_the_wall_time_of_processes_before():
    """Two that were stopped, of 90 and 10 seconds until the last record that is kept; pauses between do not count."""
    log = [
        {"event": event, "time": f"2026-01-01T{time}.000+00:00"}
        for event, time in (
            *(("start", "10:00:00"), ("step", "10:00:30"), ("epoch", "10:01:30")),
            *(("start", "12:00:00"), ("step", "12:00:10")),
            *(("start", "13:00:00"), ("epoch", "13:10:00")),
        )
    ]
    assert wall_before(log) == 100 and wall_before(log[:3]) == 0 and wall_before([]) == 0


@pytest.mark.slow
def test_an_epochs_rate_is_its_own(packed, tmp_path, monkeypatch, capsys):
    """The second of the stage's two epochs is slow, and no other; lines and log say how long the run still takes."""
    original, done = EagerStep.__call__, []

    def slow(self, *arguments, **named):
        original(self, *arguments, **named)
        done.append(1)
        if 6 < len(done) <= 9:  # of three steps an epoch
            time.sleep(0.2)

    monkeypatch.setattr(EagerStep, "__call__", slow)
    train_tiny(packed, tmp_path / "run", "--no-evaluation")
    found = [r for r in read_log(tmp_path / "run" / "log.jsonl") if r["event"] == "epoch"]
    assert all(r["img_per_s"] == pytest.approx(40 / r["train_s"]) for r in found)
    assert found[2]["img_per_s"] < 40 / 0.6 and found[2]["left_s"] > 0 and found[-1]["left_s"] == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  epoch")]
    assert all(line.endswith(" left") for line in lines[:-1]) and lines[-1].endswith(" img/s")
