"""A data set's files behind one interface, whether they lie in a folder or in a zip that stays packed.

A tree lists paths relative to the data set's root (the folder that holds train/, found up to two levels
down). Reading goes through a *reader* and *locators*, both small and picklable, so that decoding
processes need neither the listing nor the zip's directory of 120,000 entries.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from fastres.errors import DataError, MachineError

SPLITS = ("train", "val", "test")
IMAGE_ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif")
TEXT_FILES = ("wnids.txt", "words.txt", "val/val_annotations.txt")


class Reader(Protocol):
    """Reads one file; lives in whichever process decodes."""

    def read(self, locator: Any) -> bytes: ...


class Tree(Protocol):
    """What the layout code needs to know about a source."""

    name: str  # for messages: the path as the user knows it
    reader: Reader

    def files(self, split: str) -> list[str]: ...
    def has(self, path: str) -> bool: ...
    def locator(self, path: str) -> Any: ...
    def read(self, path: str) -> bytes: ...


def is_image(path: str) -> bool:
    """Whether the name says image; what the bytes say is for the decoder."""
    return path.lower().endswith(IMAGE_ENDINGS)


def hidden(path: str) -> bool:
    """Whether some part of the path is a system's litter: .DS_Store, ._x.JPEG, __MACOSX."""
    return path.startswith((".", "__MACOSX/")) or "/." in path


def only_root(name: str, candidates: list[str]) -> str:
    """The shallowest of the folders that hold train/, given as paths with "/"; "" is the top itself."""
    if not candidates:
        raise DataError(
            f"{name}: found no train/ folder here or up to two levels below, expected the layout of "
            "tiny-imagenet-200 (train/, val/, wnids.txt); check that --source names the data set"
        )
    depth = min(len(c.split("/")) if c else 0 for c in candidates)
    shallowest = sorted(c for c in candidates if (len(c.split("/")) if c else 0) == depth)
    if len(shallowest) > 1:
        raise DataError(
            f"{name}: found several data sets ({', '.join(shallowest)}), expected one; name it with --source"
        )
    return shallowest[0]


class FolderReader:
    """Reads files below a root."""

    def __init__(self, root: str):
        self.root = root

    def read(self, locator: str) -> bytes:
        with open(f"{self.root}/{locator}", "rb") as file:
            return file.read()


class FolderTree:
    """A data set in a folder."""

    def __init__(self, path: Path):
        self.name = str(path)
        below = only_root(self.name, [c for c in _folders(path, 2) if (path / c / "train").is_dir()])
        self.root = (path / below).resolve()
        self.reader = FolderReader(str(self.root))

    def files(self, split: str) -> list[str]:
        return [path for path, _ in self._walk(split)]

    def has(self, path: str) -> bool:
        return (self.root / path).is_file()

    def locator(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes:
        return self.reader.read(path)

    def fingerprint(self) -> str:
        """A digest of every file's path, size and time of change, without opening the images.

        It sees whatever adds, removes, renames, replaces or edits a file. It does not see bytes that change
        under the same size and time (a bit that rots on the disk, an edit whose time was set back).
        120,000 files take 0.5 s from a warm cache.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            lines = []
            for path, entry in self._walk(split):
                try:
                    status = entry.stat()
                except FileNotFoundError:  # a link that leads nowhere: the decoder will say so
                    status = entry.stat(follow_symlinks=False)
                lines.append(f"{path} {status.st_size} {status.st_mtime_ns}\n")
            lines.sort()
            digest.update("".join(lines).encode(errors="surrogateescape"))
        for path in TEXT_FILES:
            text = self.read(path) if self.has(path) else b"absent"
            digest.update(hashlib.sha256(text).digest())
        return digest.hexdigest()

    def _walk(self, split: str) -> Iterator[tuple[str, os.DirEntry]]:
        """Each file below root/split as (path relative to root, entry), in no particular order."""
        pending = [split] if (self.root / split).is_dir() else []
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(f"{self.root}/{folder}") as entries:
                    for entry in entries:
                        path = f"{folder}/{entry.name}"
                        if hidden(path):
                            continue
                        if entry.is_dir():
                            pending.append(path)
                        else:
                            yield path, entry
            except OSError as error:
                raise MachineError(
                    f"{self.root}/{folder}: cannot be listed ({error.strerror}); check its permissions"
                ) from None


def _folders(path: Path, levels: int, below: str = "") -> Iterator[str]:
    """`below` and the folders under it, down to `levels`, skipping those that are a data set's inside."""
    yield below
    here = path / below
    if levels == 0 or (here / "train").is_dir():
        return
    for entry in sorted(os.scandir(here), key=lambda e: e.name):
        if entry.is_dir() and not hidden(entry.name):
            yield from _folders(path, levels - 1, f"{below}/{entry.name}" if below else entry.name)
