"""Runs of the tiny schedule in this process, and a way to stop one at a step."""

import json
import os
import signal
from pathlib import Path

from fastres import train
from fastres.engine.step import EagerStep
from fastres.errors import run_command
from tests.conftest import TINY_FILE


def train_tiny(packed: Path, folder: Path, *extra, code: int = 0) -> dict | None:
    """`train` on the schedule, without W&B; its summary, None where it left none."""
    command = ["--schedule", TINY_FILE, "--data", packed, "--run-dir", folder, "--wandb", "off", *extra]
    assert run_command(lambda: train.main([str(word) for word in command])) == code
    summary = folder / "summary.json"
    return json.loads(summary.read_text()) if summary.exists() else None


def stop_after(monkeypatch, steps: int) -> list[int]:
    """SIGTERM to this process after so many steps; the steps that were done, as they are done."""
    original, done = EagerStep.__call__, []

    def counting(self, *arguments, **named):
        original(self, *arguments, **named)
        done.append(len(done) + 1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EagerStep, "__call__", counting)
    return done
