"""Commands as a user types them, and the demo's own run, made once for all tests that look at it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def command(*arguments, **environment) -> subprocess.CompletedProcess:
    """A command as a user types it, from the repository's root."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), **environment}, timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory) -> Path:
    """The small world's target, rendered and packed by the command."""
    packed = tmp_path_factory.mktemp("demo") / "packed"
    done = command("preprocess/pack.py", "--small-world", "--out", packed)
    assert done.returncode == 0, done.stderr
    return packed


@pytest.fixture(scope="session")
def demo_run(demo_world, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The demo's run folder, and what the command said."""
    run = tmp_path_factory.mktemp("demo") / "run"
    done = command("-m", "fastres.train", "--schedule", "demo", "--data", demo_world, "--run-dir", run)
    assert done.returncode == 0, done.stderr
    return run, done
