"""Runs of the tiny schedule in this process, and a way to stop one at a step."""

import json
import os
import signal
from pathlib import Path
from unittest import mock

from fastres.machine.command import run_command
from fastres.stage.step import EagerStep
from fastres.train import command as train_command
from fastres.train import publishing
from tests.conftest import TINY_FILE


def train_tiny(packed: Path, folder: Path, *extra, code: int = 0, draws: bool = False) -> dict | None:
    """`train` on the schedule, without W&B; its summary, None where it left none.

    `draws`: error by epoch and views, too, which take as long as all the rest of such a run.
    """
    command = ["--schedule", TINY_FILE, "--data", packed, "--run-dir", folder, "--wandb", "off", *extra]
    drawing = publishing.draw if draws else lambda *_: []
    with mock.patch.object(publishing, "draw", drawing):
        assert run_command(lambda: train_command.main([str(word) for word in command])) == code
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
