"""An exclusive lock on a file that the kernel gives back when its holder dies, however it dies.

filelock is not used. Where a file system has no locks it falls back to one that outlives its holder (4.3). Its older
versions, which torch accepts too, empty the file that they fail to lock (3.16), and with it the holder's process id,
which a refusal names and by which a run is known to be live.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastres.machine.files import ours


def take(file: IO | int, *, wait: bool = False) -> bool:
    """Lock an open file, or its descriptor, until it is closed. False where another process has it; `wait` for it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def take_named(path: Path) -> IO | None:
    """An open, locked file of that name, to read and append to, made where there is none. None where another process
    has it.

    A file that its last holder renamed or removed while we opened it binds nobody: then it is opened anew.
    """
    while True:
        file = open(path, "a+b", opener=ours)  # noqa: SIM115 - the caller closes it
        if not take(file):
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


class Lock:
    """An exclusive lock on a file, given back by the kernel when the process dies."""

    def __init__(self, path: Path, wait: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a", opener=ours)  # noqa: SIM115 (held as long as the lock)
        self.held = take(self._file, wait=wait)
        if not self.held:
            self._file.close()

    def release(self) -> None:
        """Give it back; twice is fine."""
        self.held = False
        self._file.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock, after waiting for it, while entered."""
    lock = Lock(path)
    try:
        yield
    finally:
        lock.release()
