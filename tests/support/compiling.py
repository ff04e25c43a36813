"""Triton's compiler in a process of its own, with a cache of its own: no GPU is needed, and nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path


def printed_by(program: str, cache: Path) -> str:
    """What a Python program prints, run from the project's root; it must end with 0."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
