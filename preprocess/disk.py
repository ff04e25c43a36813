"""The disk's own faults as sentences: full, read-only, not ours to write."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fastres.machine.errors import MachineError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_space(folder: Path, needed: int) -> None:
    """MachineError unless `folder`'s disk has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError(
            f"{folder}: found {free:,} bytes free, expected the {needed:,} needed; free some or write elsewhere"
        )


@contextlib.contextmanager
def disk_faults(folder: Path, needed: int | None = None) -> Iterator[None]:
    """Turn an OSError while writing below `folder` into its sentence; `needed`: bytes in all, where known."""
    try:
        yield
    except BrokenPipeError:  # `... | head`, not the disk
        raise
    except OSError as error:
        where = error.filename or folder
        if error.errno in FULL:
            amount = f"the {needed:,} needed" if needed else "enough to finish"
            free = shutil.disk_usage(folder).free
            raise MachineError(
                f"{where}: the disk is full, found {free:,} bytes free, expected {amount}; free some or write elsewhere"
            ) from None
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise UsageError(f"{where}: found a file, expected a folder; name another one") from None
        if isinstance(error, PermissionError):
            raise MachineError(
                f"{where}: {error.strerror}, expected to be allowed there; check the permissions, or move it away"
            ) from None
        raise MachineError(f"{where}: {error.strerror or error}, expected to read and write here") from error


def sync_file(path: Path) -> None:
    """What was written to the file is on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
