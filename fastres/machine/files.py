"""Files that are whole or absent: nothing half-written ever has its final name, and no link is written through."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from pathlib import Path

from fastres.machine.errors import MachineError

_TEMPORARY = re.compile(r"\..+\.(\d+)(?:\.[0-9a-f]{8})?\.fastres-tmp")  # no name that a user's own file has
_ABANDONED_S = 3600.0  # a temporary file of this age has no writer, whatever process has the number now


def read_regular(path: str | Path, most: int = -1) -> bytes:
    """A file's bytes, the first `most` where given. OSError for whatever is no regular file, which is not even opened:
    a pipe would not end, and a device may act on it."""
    _must_be_regular(os.stat(path), path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        _must_be_regular(os.fstat(file.fileno()), path)  # another may have taken its place
        return file.read(most)


def _must_be_regular(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def ours(path: str | Path, flags: int) -> int:
    """An opener, as `open` takes one, for what we write in place: OSError for a link, whose target is not ours, and for
    whatever is no regular file, such as a pipe, which is not waited for."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise
        raise _in_the_way(path) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _in_the_way(path)
    return handle


def _in_the_way(path: str | Path) -> OSError:
    kind = "a symbolic link" if os.path.islink(path) else "no regular file"
    return OSError(errno.EINVAL, f"it is {kind}, and what that leads to is left alone", str(path))


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds all of it or is as before, through kills and power cuts.

    A temporary file beside `path` is written, synced and renamed over it, then the folder is synced. Raises
    MachineError (the OSError is its cause) on a full disk, a missing right, or where `path` is a link, a device or the
    like, which is not replaced; the temporary is removed where it can be.
    """
    path = Path(path)
    # a process's number alone is not its own: each container has a process 1, and threads share theirs
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.fastres-tmp")
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise MachineError(
            f"{path}: is {'a symbolic link' if path.is_symlink() else 'no regular file'}, so it is left as it is; "
            "expected a file or nothing there; name another one, or move it away"
        )
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if not isinstance(error, FileExistsError):  # else it is not ours
            with contextlib.suppress(OSError):  # a file system that turned read-only
                temporary.unlink(missing_ok=True)
        remedy = "check the permissions there" if isinstance(error, PermissionError) else "free some space there"
        raise MachineError(
            f"{path}: could not write its {len(content):,} bytes ({error.strerror or error}); {remedy}, or choose "
            "another folder"
        ) from error


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`. A live process's file of the last hour stays: some write
    there without the folder's lock, as `show` does its page."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if (found := _TEMPORARY.fullmatch(path.name)) and not _being_written(path, found[1]):
            path.unlink(missing_ok=True)


def _being_written(path: Path, process: str) -> bool:
    try:
        return os.path.exists(f"/proc/{process}") and time.time() - path.lstat().st_mtime < _ABANDONED_S
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
