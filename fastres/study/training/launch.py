"""A command of ours in a process of its own, so that one that fails takes nothing along."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fastres.machine import waiting
from fastres.machine.errors import MachineError
from fastres.machine.files import ours

PR_SET_PDEATHSIG = 1  # prctl(2)


class Launched(Protocol):
    """A command that runs."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def stop(self) -> None:
        """Ask it to save and leave."""


Start = Callable[[str, list[str], Path, int | None], Launched]


class Child:
    """`python -m module arguments`; what it says goes to a file.

    In a session of its own, so that Ctrl-C reaches it once, through us; if we die it is asked to stop.
    """

    def __init__(self, module: str, arguments: list[str], output: Path, threads: int | None) -> None:
        """`threads`: what it may use of a CPU; None: all of it."""
        libc, ours_is = ctypes.CDLL(None), os.getpid()

        def leave_with_us() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != ours_is:  # we died before the kernel knew
                os.kill(os.getpid(), signal.SIGTERM)

        environment = {**os.environ, **waiting.as_here(), **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(output, "wb", opener=ours) as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
                preexec_fn=leave_with_us,
            )

    def poll(self) -> int | None:
        """Its exit code, MachineError's where a signal killed it; None while it runs."""
        code = self._process.poll()
        return MachineError.exit_code if code is not None and code < 0 else code

    def stop(self) -> None:
        """SIGTERM: ours save and leave."""
        self._process.send_signal(signal.SIGTERM)
