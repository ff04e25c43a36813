"""Commands as a user types them, and the demo's own run, made once for all tests that look at it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Two threads that wait for each other are many times slower where another test has one of their cores.
THREADS = max(1, os.cpu_count() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))


def command(*arguments, **environment) -> subprocess.CompletedProcess:
    """A command as a user types it, from the repository's root."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS), **environment},
        timeout=1800,
    )


def keep_compiled(folder: Path) -> None:
    """Let fastres in `folder`, a clone or an installed package, use what Numba has compiled of the same files here.

    Numba knows them by time and size. Else the first command there compiles for half a minute, as the first one here
    does on a fresh machine.
    """
    here, there = ROOT / "fastres/views", folder / "fastres/views"
    for path in here.glob("*.py"):
        twin = there / path.name
        if twin.exists() and twin.read_bytes() == path.read_bytes():
            shutil.copystat(path, twin)
    (there / "__pycache__").mkdir(exist_ok=True)
    for path in here.glob("__pycache__/*.nb?"):
        shutil.copy2(path, there / "__pycache__")


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory) -> Path:
    """The small world's target, rendered and packed by the command."""
    packed = tmp_path_factory.mktemp("demo") / "packed"
    done = command("preprocess/pack.py", "--small-world", "--out", packed)
    assert done.returncode == 0, done.stderr
    return packed


@pytest.fixture(scope="session")
def demo_run(demo_world, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder of a run of the demo with half the epochs of its long stages, and what the command said."""
    run = tmp_path_factory.mktemp("demo") / "run"
    halved = ("--set", "stages.1.epochs=3", "stages.3.epochs=4")
    done = command("-m", "fastres.train", "--schedule", "demo", "--data", demo_world, "--run-dir", run, *halved)
    assert done.returncode == 0, done.stderr
    return run, done
