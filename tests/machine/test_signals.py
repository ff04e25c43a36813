"""SIGTERM and SIGINT: a checkpoint at the next step and exit 75; a second one ends the process at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fastres.train import command as train_module
from fastres.train import loop
from fastres.train.checkpoint import Position, checkpoints_in
from tests.conftest import TINY_FILE
from tests.support.tiny_runs import train_tiny

SIGNALLED = """
import os, signal, sys, threading, time
from fastres.train import command
from fastres.stage.step import EagerStep
from fastres.machine.command import run_command
original = EagerStep.__call__
def first(self, *arguments, **named):
    original(self, *arguments, **named)
    os.kill(os.getpid(), signal.{name})
    if {twice}:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
EagerStep.__call__ = first
sys.exit(run_command(lambda: command.main(sys.argv[1:])))
"""


@pytest.mark.fault(22)
@pytest.mark.slow
@pytest.mark.parametrize(("name", "twice"), [("SIGTERM", False), ("SIGINT", True)])
def test_a_signal_is_exit_75_and_a_second_one_ends_the_run_at_once(packed, tmp_path, name, twice):
    program = SIGNALLED.format(name=name, twice=twice)
    command = [
        sys.executable,
        "-c",
        program,
        "--schedule",
        TINY_FILE,
        "--data",
        packed,
        "--run-dir",
        tmp_path / "run",
        "--wandb",
        "off",
        "--device",
        "cpu",
    ]
    started = time.monotonic()
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 75 and time.monotonic() - started < 50 and "Traceback" not in done.stderr
    positions = [saved.position for saved in checkpoints_in(tmp_path / "run" / "checkpoints")]
    assert positions == ([] if twice else [Position(0, 0, 1)])
    assert twice or "stopped by a signal in stage fc epoch 1 after step 1; the same command" in done.stderr


@pytest.mark.fault(22)
def test_a_signal_before_the_first_step_is_heard(packed, tmp_path, monkeypatch):
    """While data load and the network is made."""
    original = train_module.open_split

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(train_module, "open_split", signalled)
    monkeypatch.setattr(os, "_exit", lambda code: None)  # two splits, two signals
    monkeypatch.setattr(loop, "train_epoch", None)
    assert train_tiny(packed, tmp_path / "run", code=75)["status"] == "preempted"
