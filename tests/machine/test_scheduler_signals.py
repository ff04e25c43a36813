"""The signals that schedulers send before a job is over."""

import subprocess
import sys

import pytest

from tests.evaluate.test_outputs import WEIGHTS, refused, run  # noqa: F401 - a fixture


@pytest.mark.fault(45)
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_schedulers_signals_are_heard(name):
    code = (
        "import os, signal, sys\nfrom fastres.machine.command import run_command\n"
        f"sys.exit(run_command(lambda: os.kill(os.getpid(), signal.{name}) or signal.pause()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 75 and name in done.stderr
