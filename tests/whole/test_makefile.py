"""The Makefile's environment: one that no pip runs in is made anew; a whole one is left alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with a space in its name that has been set up, all but its environment."""
    folder = tmp_path / "a checkout"
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for stamp in ("made", "lint"):
        (folder / f".venv/{stamp}.stamp").touch()
    return folder


def planned(checkout: Path) -> str:
    """What `make lint` would do."""
    command = ["make", "-n", "lint", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=60).stdout


def test_an_environment_with_pip_is_left_alone(checkout):
    (checkout / ".venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (checkout / ".venv/bin/python").chmod(0o755)
    assert "venv --clear" not in planned(checkout) and (checkout / ".venv/made.stamp").exists()


@pytest.mark.parametrize("state", ["no pip", "python gone", "half made"])
def test_an_environment_without_pip_is_made_anew(checkout, state):
    """As apt's python3-venv leaves it where ensurepip is missing, a new Python of the system, and a kill."""
    python = checkout / ".venv/bin/python"
    if state == "no pip":
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
    elif state == "python gone":
        python.symlink_to("/nowhere/python3")
    assert "venv --clear .venv" in planned(checkout)
