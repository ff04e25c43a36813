"""Runs of fastres.train in forked children of a process that has imported everything: a kill costs no start.

    with Runs() as runs:
        code = runs.finish([...]); code = runs.kill_after([...], seconds); code = runs.kill_at([...], "step", 5)

As a program it takes one JSON line a run on stdin and answers with the child's pid, then with its exit code.
"""

import gc
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ("step", "border", "validation", "evaluation", "write")


class Runs:
    """A server process; exit codes are negative for signals."""

    def __enter__(self) -> "Runs":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def _start(self, arguments: list, place: tuple | None = None) -> int:
        self._server.stdin.write(json.dumps({"arguments": [str(a) for a in arguments], "place": place}) + "\n")
        return int(self._server.stdout.readline())

    def finish(self, arguments: list) -> int:
        """Run to the end."""
        self._start(arguments)
        return int(self._server.stdout.readline())

    def kill_after(self, arguments: list, seconds: float) -> int:
        """SIGKILL after so long, unless it ended before."""
        pid = self._start(arguments)
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)  # not yet reaped: its pid is its own
        return int(self._server.stdout.readline())

    def kill_at(self, arguments: list, place: str, count: int) -> int:
        """SIGKILL at the count-th time that the run comes to one of PLACES."""
        self._start(arguments, (place, count))
        return int(self._server.stdout.readline())


def place_of(place: str) -> tuple[object, str]:
    """Where each of PLACES is in the code: an object and the name of its function."""
    from fastres.machine import files
    from fastres.stage.step import EagerStep
    from fastres.train import loop, run

    return {
        "step": (EagerStep, "__call__"),
        "border": (run, "operate"),
        "validation": (loop, "scores_on_device"),
        "evaluation": (loop, "evaluate"),
        "write": (files.os, "fsync"),
    }[place]


def die_at(place: str, count: int) -> None:
    """In the child: SIGKILL itself there."""
    owner, name = place_of(place)
    original, left = getattr(owner, name), count

    def deadly(*arguments, **named):
        nonlocal left
        left -= 1
        if left == 0 and place == "write":  # half of the file is on the disk (odd counts; even ones sync folders)
            os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, deadly)


def serve() -> None:
    import matplotlib.backends.backend_agg  # noqa: F401 - this and Numba each run would load for itself
    import torch

    from fastres.machine.command import run_command
    from fastres.train import command as train_command
    from fastres.views import numba_views  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # no child looks through what was imported
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(2, 1)
                if request["place"]:
                    die_at(*request["place"])
                code = run_command(lambda: train_command.main(request["arguments"]))  # noqa: B023 (called here)
            finally:
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
