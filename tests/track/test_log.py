"""log.jsonl, the clock, the tables and the progress bar of a run."""

import io
import json
import signal
import sys
import time

import numpy as np
import pytest

from fastres.machine import console
from fastres.machine.errors import DataError
from fastres.track import clock
from fastres.track.log import JsonLines, read_log
from tests.support.processes import start


def test_log_records_come_back_as_written(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    log.write("epoch", loss=np.float32(0.5), ids=np.arange(2), bad=float("inf"), worse=np.nan, name="é\n")
    log.close()
    (record,) = read_log(log.path)
    assert record.pop("time").endswith("+00:00")
    assert record == {"event": "epoch", "loss": 0.5, "ids": [0, 1], "bad": None, "worse": None, "name": "é\n"}
    assert read_log(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"event": "st', b"\x00" * 50, b"\x00" * 50 + b"\n", b"{}"[:1] + b"\n"])
def test_a_torn_last_line_is_cut_off_and_the_next_record_is_whole(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    for epoch in (1, 2):
        log.write("epoch", epoch=epoch)
    log.close()
    path.write_bytes(path.read_bytes() + torn)
    assert [record["epoch"] for record in read_log(path)] == [1, 2]
    log = JsonLines(path)
    log.write("epoch", epoch=3)
    log.close()
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"event": "a"}\nxx\n{"event": "b"}\n')
    with pytest.raises(DataError, match="line 2"):
        read_log(tmp_path / "log.jsonl")


def test_rewinding_drops_what_a_resumed_run_repeats(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    for epoch in (1, 2, 3):
        log.write("epoch", epoch=epoch)
    assert log.rewind_to(lambda record: record["epoch"] <= 1) == 2
    log.write("epoch", epoch=2)
    log.close()
    assert [record["epoch"] for record in read_log(log.path)] == [1, 2]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from fastres.track.log import JsonLines
log = JsonLines(Path(sys.argv[1]))
print("open", flush=True)
number = 0
while True:
    log.write("step", number=number, filler="x" * 3000)
    number += 1
"""


def test_sigkill_leaves_every_record_but_the_last_whole(tmp_path):
    with start(WRITE_FOR_EVER, tmp_path / "log.jsonl") as writer:
        writer.stdout.readline()
        time.sleep(0.2)
        writer.send_signal(signal.SIGKILL)
    JsonLines(tmp_path / "log.jsonl").close()
    numbers = [record["number"] for record in read_log(tmp_path / "log.jsonl")]
    assert numbers == list(range(len(numbers))) and len(numbers) > 10


def test_clock_adds_up_spans_and_rate_leaves_out_the_warm_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    spans, rate = clock.Clock(), clock.Rate(warmup_steps=2)
    for epoch in range(2):
        with spans("train"), rate.running():
            for _ in range(3):
                now[0] += 10.0 if rate.steps < 2 else 0.5  # the first two steps compile
                rate.step(100)
            assert rate.img_per_s == pytest.approx(200.0), epoch
        with spans("val"):
            now[0] += 7.0
    assert dict(spans.seconds) == pytest.approx({"train": 22.0, "val": 14.0})
    assert rate.img_per_s == pytest.approx(200.0)
    assert clock.Rate().img_per_s is None


def test_table_aligns_its_columns():
    assert console.table([["12-crop", 26.8, None], ["full", 128.8, 7]], ["method", "top-1 %", "n"]) == (
        "method   top-1 %  n\n-------  -------  -\n12-crop    26.80  –\nfull      128.80  7"
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_draws_a_bar_on_a_terminal_and_only_lines_elsewhere(monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with console.Progress(1000, "stage 1/4 epoch 2/5") as progress:
            for _ in range(10):
                progress.update(100, loss=1.23456, err=45.6)
                time.sleep(0.03)
            console.say("epoch 2: 45.6 %")
        if stream.isatty():
            assert "stage 1/4 epoch 2/5" in stream.getvalue() and "img/s" in stream.getvalue()
            assert "loss=1.235" in stream.getvalue() and "epoch 2: 45.6 %\n" in stream.getvalue()
        else:
            assert stream.getvalue() == "epoch 2: 45.6 %\n"
