"""Machine code that outlives its process: what torch.compile and Triton compiled lies beside the packed data.

Both look for it where TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR say, by default below /tmp and in ~/.triton, which a
container or a job's machine loses. Several processes may share a folder, and `packed/.compiled` may be removed at any
time when no run is on.

A full disk or a kill can leave a compiled library incomplete, and loading it ends the process (SIGBUS). So each process
notes the digests of all files when it ends. The next process that finds the folder unused removes every file whose
digest differs.
Where a process that shared the folder was killed, nothing is noted, and what came since is compiled again: each has a
locked file there that it takes away in the end.

Who can write into such a folder runs code in every process that reads it: it has machine code and pickles in it. So it
is used only where it and the packed folder around it are this user's (the latter may be root's) and nobody else may
write there; a packed folder with mode g+w is left alone, too. Machine code made on one processor may stop another with
an illegal instruction, so each kind of machine has a folder of its own in it. Numba's cache is elsewhere: it names the
processor itself (views/numba_chance.py).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fastres.machine.errors import MachineError
from fastres.machine.facts import cpuinfo
from fastres.machine.files import write_atomic
from fastres.machine.lock import take

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # the variables that name their folders
NAME = ".compiled"  # in a packed folder
LOCK, DIGESTS, SHARER = "lock", "digests.json", "sharer."  # in a machine's folder
NEEDED = 1e9  # bytes free: a schedule's compiled stages take some hundred MB, and a full disk would end the run
OF_A_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features")


@contextlib.contextmanager
def kept_beside(packed: Path, wanted: bool = True) -> Iterator[None]:
    """While this is open, torch.compile and Triton keep what they compile in `packed`, if `wanted`.

    A variable that the user has set stays as it is. Nothing is raised: where the folder cannot be used, the default
    places are.
    """
    with contextlib.ExitStack() as stack:
        folder = _opened(packed, stack) if wanted else None
        stack.enter_context(_named_by_variables(folder))
        yield


def _opened(packed: Path, stack: contextlib.ExitStack) -> Path | None:
    """The folder with nothing unsound in it, shared with other processes until `stack` ends; None: not to be used."""
    try:
        if (folder := folder_in(packed)) is None:
            return None
        # for reading too: over NFS a shared lock asks for it
        lock = stack.enter_context(open(folder / LOCK, "a+b"))  # noqa: SIM115 - the stack closes it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_unsound(folder)
            for sharer in folder.glob(f"{SHARER}*"):
                sharer.unlink()
        except BlockingIOError:  # another process has looked through it, or is at it: wait for that
            pass
        fcntl.flock(lock, fcntl.LOCK_SH)
        own = folder / f"{SHARER}{secrets.token_hex(8)}"
        take(stack.enter_context(open(own, "xb")))  # noqa: SIM115 - the stack closes it
    except OSError:
        return None
    stack.callback(own.unlink, missing_ok=True)
    stack.callback(_note, folder, own)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    """sha256 by name of all files but our own two; files that vanish meanwhile are left out."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.name not in (LOCK, DIGESTS) and not path.name.startswith(SHARER) and path.is_file():
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _remove_unsound(folder: Path) -> None:
    try:
        noted = json.loads((folder / DIGESTS).read_bytes())
    except (FileNotFoundError, ValueError):
        noted = {}
    for name, digest in _digests(folder).items():
        if not isinstance(noted, dict) or noted.get(name) != digest:
            (folder / name).unlink()


def _note(folder: Path, own: Path) -> None:
    with contextlib.suppress(OSError, MachineError):  # the files are taken for unsound then
        if any(_was_killed(sharer) for sharer in folder.glob(f"{SHARER}*") if sharer != own):
            return
        write_atomic(folder / DIGESTS, json.dumps(_digests(folder)).encode())


def _was_killed(sharer: Path) -> bool:
    """Whether its process went without taking its file away. That one is not removed: whoever notes next must see it
    too."""
    try:
        with open(sharer, "rb") as file:
            return take(file)
    except FileNotFoundError:  # it has just ended
        return False


@contextlib.contextmanager
def _named_by_variables(folder: Path | None) -> Iterator[None]:
    names = [name for name in CACHES if folder and not _is_users(name)]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: f"{folder}/{name.partition('_')[0].lower()}" for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _is_users(name: str) -> bool:
    """Whether the variable was set by the user, and not by torch: it puts its default place there when it is loaded."""
    if name == "TRITON_CACHE_DIR" and "TRITON_HOME" in os.environ:  # says where Triton's cache lies, too
        return True
    default = os.path.join(tempfile.gettempdir(), "torchinductor_")
    return name in os.environ and not os.environ[name].startswith(default)


def folder_in(packed: Path) -> Path | None:
    """The folder for this kind of machine in `packed`, made where it is missing; None where it is not to be used."""
    try:
        packed = packed.resolve(strict=True)
        if not _is_safe(packed, (0, os.geteuid())):
            return None
        for folder in (packed / NAME, packed / NAME / _machine()):
            folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_safe(folder, (os.geteuid(),)) or not os.access(folder, os.W_OK | os.X_OK):
                return None
        return folder if shutil.disk_usage(folder).free >= NEEDED else None
    except OSError:
        return None


def _is_safe(folder: Path, owners: tuple[int, ...]) -> bool:
    """Whether it is a folder, no link to one, of one of `owners`, and nobody else may write into it."""
    status = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISDIR(status.st_mode) and status.st_uid in owners and not status.st_mode & others


def _machine() -> str:
    """A name for all machines that can run each other's code: processor, C library, Python, torch."""
    first = cpuinfo().partition("\n\n")[0].splitlines()
    processor = [line for line in first if line.partition("\t")[0].partition(":")[0].strip() in OF_A_PROCESSOR]
    said = (*processor, platform.machine(), *platform.libc_ver(), platform.python_version(), torch.__version__)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
