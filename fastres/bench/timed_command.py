"""A whole command, measured from outside: wall time, and the memory of it and all that it starts."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from fastres.machine.errors import MachineError

LOOK_EVERY = 0.05  # seconds between looks at the memory


def timed(command: list[str], environment: Mapping[str, str] | None = None) -> tuple[float, int]:
    """Wall seconds of a command and the most memory, in bytes, that it and its descendants held together.
    environment: None for this process's."""
    start, peak, ended = time.perf_counter(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(LOOK_EVERY):
            peak = max(peak, _memory_of(process.pid))

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    said, _ = process.communicate()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if process.returncode:
        raise MachineError(f"{' '.join(command)} ended with {process.returncode}: {said[-1000:]}")
    return seconds, peak


def _memory_of(pid: int) -> int:
    """Resident bytes of a process and its descendants; pages that they share count for each."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in _children(task)]
    except (OSError, IndexError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(_memory_of, children))


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()
