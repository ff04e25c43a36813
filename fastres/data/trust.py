"""Large packed files are hashed once, then trusted while size, time of change and inode stay what they were.

Streaming engines hand these files to libraries that never return from damaged ones, so nothing unverified gets there.
What was verified is noted in <packed>/.verified.json, per file: its sha256 and what the file system said of it.
A run looks at its files again as long as it lasts: `Watched`.
"""

import json
import os
import weakref
from pathlib import Path

from fastres.data.manifest import REMEDY, Manifest, check_sizes, verify_file, verify_size
from fastres.machine import strict_json
from fastres.machine.errors import DataError, MachineError, of_the_machine
from fastres.machine.files import read_regular, write_atomic

FILE_NAME = ".verified.json"


class Watched:
    """A packed file of a run: still the one that was verified, by size, time of change and inode.

    Cut, overwritten, removed or replaced under a run, it is a DataError, whatever a library makes of it.
    """

    def __init__(self, packed: Path, manifest: Manifest, name: str, *, read: bool = False) -> None:
        """Verifies the file; `read`: its reader is about to, with all of it."""
        self._file, self.path = (packed, manifest, name), Path(packed) / name
        self._trusted = _identity(*self._file) if read else verify_once(*self._file)

    def open(self) -> int:
        """A handle to read the verified file by, for as long as this object lasts."""
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, handle)
        self.unchanged()
        return handle

    def check(self) -> None:
        """For the start of an epoch. A file that was touched is hashed again: restored, it serves as before."""
        if self._trusted is None or _identity(*self._file) != self._trusted:
            self._trusted = verify_once(*self._file)

    def unchanged(self) -> None:
        """Right after a part of it was read: what was read is not what was verified if the file changed since."""
        if _identity(*self._file) != self._trusted:
            verify_size(*self._file)  # says what is wrong with it, if that shows
            raise DataError(f"{self.path}: changed while it was read, expected what was packed; {REMEDY}")

    def fault(self, error: Exception, library: str) -> Exception:
        """What to raise for what a library raised while it read the file."""
        self.unchanged()
        if of_the_machine(error) or not isinstance(error, RuntimeError | ValueError | TypeError | AssertionError):
            return error
        text = str(error).rpartition("encountered:")[2].strip() or type(error).__name__  # DALI's: after its traceback
        return DataError(
            f"{self.path}: {library} cannot read it ({text.splitlines()[0]}), expected what was packed; {REMEDY}, or "
            "use another --engine"
        )


def verify_once(packed: Path, manifest: Manifest, name: str) -> list | None:
    """DataError unless the file is what was packed; microseconds where this is known from an earlier time. Returns
    what the file system said of it before it was looked at."""
    trusted = _noted(packed)
    entry = _identity(packed, manifest, name)
    if entry is not None and trusted.get(name) == entry:
        return entry
    verify_file(packed, manifest, name)
    if _identity(packed, manifest, name) == entry:  # else it changed while it was read: not noted
        note(packed, {**trusted, name: entry})
    return entry


def note_packed(packed: Path, manifest: Manifest) -> None:
    """For the packer: these files were hashed a moment ago."""
    check_sizes(packed, manifest)
    note(packed, {name: _identity(packed, manifest, name) for name in manifest.files})


def note(packed: Path, entries: dict[str, list]) -> None:
    """Keep what is known; a folder that cannot be written to costs the hashing each time, no more."""
    try:
        write_atomic(packed / FILE_NAME, json.dumps(entries, indent=1).encode() + b"\n")
    except MachineError:
        return


def _noted(packed: Path) -> dict[str, list]:
    try:
        entries = strict_json.loads(read_regular(packed / FILE_NAME))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _identity(packed: Path, manifest: Manifest, name: str) -> list | None:
    """What must not change: the expected digest, size, time in ns, inode. None where there is no such file."""
    try:
        status = (packed / name).stat()
        return [manifest.files[name]["sha256"], status.st_size, status.st_mtime_ns, status.st_ino]
    except (OSError, KeyError):
        return None
