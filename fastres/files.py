"""Files that are whole or absent: nothing half-written ever has its final name."""

import contextlib
import os
import re
from pathlib import Path

from fastres.errors import MachineError

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds all of it or is as before, through kills and power cuts.

    A temporary file beside `path` is written, synced and renamed over it, then the folder is synced. Raises
    MachineError (the OSError is its cause) on a full disk or a missing right; the temporary is removed where it can be.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # a file system that turned read-only
            temporary.unlink(missing_ok=True)
        raise MachineError(f"{path}: could not write its {len(content):,} bytes ({error.strerror or error}); "
                           f"free some space there or choose another folder") from error


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`. For the holder of the folder's lock only: it knows that
    no other process is writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
