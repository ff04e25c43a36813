"""Files that are whole or absent: nothing half-written ever has its final name."""

import os
from pathlib import Path

from fastres.errors import MachineError


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds all of it or is as before, through kills and power cuts.

    A temporary file beside `path` is written, synced and renamed over it, then the folder is synced. Raises
    MachineError (the OSError is its cause) on a full disk or a missing right; the temporary is removed.
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
        temporary.unlink(missing_ok=True)
        raise MachineError(f"{path}: could not write its {len(content):,} bytes ({error.strerror or error}); "
                           f"free some space there or choose another folder") from error


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
