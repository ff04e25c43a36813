"""The study with its real launcher: a process for the study, one for each run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.support.study_runs import NAIVE, files


def kill_after_three_epochs(command, log, number) -> subprocess.Popen:
    """Start the study, and send it a signal when its run has logged three epochs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"epoch"') >= 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(number)
    return first


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_of_its_own_is_stopped_and_taken_up_again(packed, tmp_path, number):
    """The real launcher. A stop is handed on; where the study itself is killed, its run stops with a checkpoint."""
    long = replace(NAIVE, stages=(replace(NAIVE.stages[0], epochs=12),))
    command = [
        sys.executable,
        "-m",
        "fastres.study",
        "--schedules",
        files(tmp_path / "given", long),
        "--data",
        packed,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    run = tmp_path / "out" / "runs" / "naive-fc-s0"
    first = kill_after_three_epochs(command, run / "log.jsonl", number)
    _, said = first.communicate(timeout=120)
    assert first.returncode == (75 if number == signal.SIGTERM else -9)
    assert number == signal.SIGKILL or "goes on" in said
    deadline = time.monotonic() + 120
    while not (run / "summary.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert json.loads((run / "summary.json").read_text())["status"] == "preempted"
    time.sleep(2.0)  # it has said so; now it leaves
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    epochs = json.loads((tmp_path / "out" / "study.json").read_text())["runs"][0]["epochs"]
    assert [record["epoch_total"] for record in epochs] == list(range(1, 13))
    assert "resuming" in (tmp_path / "out" / "output" / "naive-fc-s0.txt").read_text()
