"""Large packed files are hashed once, then trusted while size, time of change and inode stay what they were.

Streaming engines hand these files to libraries that never return from damaged ones, so nothing unverified gets there.
What was verified is noted in <packed>/.verified.json, per file: its sha256 and what the file system said of it.
"""

import json
from pathlib import Path

from fastres.data.manifest import Manifest, check_sizes, verify_file
from fastres.errors import MachineError
from fastres.files import write_atomic

FILE_NAME = ".verified.json"


def verify_once(packed: Path, manifest: Manifest, name: str) -> None:
    """DataError unless the file is what was packed; microseconds where this is known from an earlier time."""
    trusted = _noted(packed)
    entry = _identity(packed, manifest, name)
    if entry is not None and trusted.get(name) == entry:
        return
    verify_file(packed, manifest, name)
    if _identity(packed, manifest, name) == entry:  # else it changed while it was read: not noted
        note(packed, {**trusted, name: entry})


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
        entries = json.loads((packed / FILE_NAME).read_text())
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
