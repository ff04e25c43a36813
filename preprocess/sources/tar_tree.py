"""A data set read in place from a tar; one that is packed in gzip, bzip2, xz or zstd is unpacked to a plain tar first.

tarfile reads the members' headers, which have checksums; the images are read here, by their place. A tar has no
checksum over its content: damage there is for the decoder to see, as in a folder. What a tar is packed in has one.
tarfile takes a damaged header for the end of the tar, so the end is checked here: nothing but zeros may follow it.
"""

import bz2
import contextlib
import gzip
import importlib
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastres.data.formats import IMAGE_ENDINGS
from fastres.machine.console import Progress
from fastres.machine.errors import DataError, MachineError
from preprocess.sources.archive import LARGEST_MEMBER, MemberTree, found_at, plain_name, too_large
from preprocess.sources.tree import hidden

PIECE = 1 << 20  # bytes
MOST_INFLATED, SMALL = 200, 1 << 30  # times its own size, once it is more than so many bytes: no image shrinks so far
ZSTD = ("compression.zstd", "backports.zstd", "pyzstd", "zstandard")  # modules whose open() reads it, best first
REMEDY = "get it again, whole"


class Place(NamedTuple):
    """Where one file lies in the tar."""

    name: str
    offset: int
    bytes: int


class TarReader:
    """Reads members by position; opens the tar on first use, once per process."""

    def __init__(self, path: str):
        self.path = path
        self._file: int | None = None

    def __getstate__(self) -> dict:
        return {"path": self.path, "_file": None}

    def read(self, locator: Place) -> bytes:
        place = Place(*locator)
        if place.bytes > LARGEST_MEMBER:
            raise too_large(self.path, place.name, place.bytes)
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        data = os.pread(self._file, place.bytes, place.offset)
        if len(data) != place.bytes:
            raise DataError(f"{self.path}: {place.name} is cut off; {REMEDY}")
        return data


class TarTree(MemberTree):
    """A data set in a tar. scratch: a folder for the plain tar of a packed one; packed: see archive.kind_of."""

    def __init__(self, path: Path, packed: str, scratch: Path, whole_is_train: bool = False):
        plain = path.resolve() if packed == "tar" else unpacked(path, packed, scratch)
        super().__init__(str(path), TarReader(str(plain)), *_directory(path, plain), whole_is_train)


def _directory(path: Path, plain: Path) -> tuple[dict[str, Place], set[str]]:
    """Every file and folder in the tar by its full name; DataError for what a data set's tar never holds."""
    members: dict[str, Place] = {}
    folders: set[str] = set()
    size = plain.stat().st_size
    try:
        with tarfile.open(plain, "r:") as archive:
            for info in _infos(archive):
                name = plain_name(str(path), info.name, info.name)
                if info.isdir():
                    folders.add(name)
                    continue
                if name in members:
                    raise DataError(f"{path}: two members are named {name}, expected one; make the tar anew")
                members[name] = _place(path, info, name, members, size)
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise _damaged(path, str(error)) from None
    _check_end(path, plain, end)
    return members, folders - {""}


def _infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every member; unlike the archive's own iterator, this does not keep 120,000 of them."""
    while (info := archive.next()) is not None:
        archive.members = []
        yield info


def _place(path: Path, info: tarfile.TarInfo, name: str, members: dict[str, Place], size: int) -> Place:
    if info.islnk():  # a second name for a file that came before
        target = plain_name(str(path), info.linkname, info.linkname)
        if target in members:
            return members[target]._replace(name=name)
    if not info.isreg() or info.issparse():
        if hidden(name):
            return Place(name, 0, 0)
        what = f"a link to {info.linkname!r}" if info.issym() or info.islnk() else "no regular file"
        raise DataError(
            f"{path}: member {name} is {what}, expected files and folders; pack it with `tar --dereference "
            "--hard-dereference`, or unpack it and give the folder to --source"
        )
    if info.size > LARGEST_MEMBER and name.lower().endswith(IMAGE_ENDINGS):
        raise too_large(str(path), name, info.size)
    if info.offset_data + info.size > size:
        raise _damaged(path, f"{name} cannot be {info.size:,} bytes at {info.offset_data:,} of {size:,}")
    return Place(name, info.offset_data, info.size)


def _check_end(path: Path, plain: Path, end: int) -> None:
    """DataError unless the tar has its end mark at `end`, and nothing after it."""
    with open(plain, "rb") as file:
        file.seek(end)
        mark = file.read(tarfile.BLOCKSIZE)
        if len(mark) < tarfile.BLOCKSIZE:
            raise _damaged(path, f"it ends at byte {end:,} without an end mark")
        piece = mark
        while piece:
            if piece.count(0) != len(piece):
                raise _damaged(path, f"no header and no end mark at byte {end:,}")
            piece = file.read(PIECE)


def unpacked(path: Path, packed: str, scratch: Path) -> Path:
    """The plain tar, written into `scratch`. DataError for a damaged file, MachineError where nothing reads zstd."""
    plain, done, size = scratch / "source.tar", 0, path.stat().st_size
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        stream = stack.enter_context(_opened(raw, path, packed))
        file = stack.enter_context(open(plain, "wb"))
        progress = stack.enter_context(Progress(size, f"unpack {path.name}", "B", lines=True))
        while piece := _next_piece(stream, path, packed):
            file.write(piece)
            done += len(piece)
            progress.at(raw.tell(), size)
            if done > SMALL and done > MOST_INFLATED * raw.tell():
                raise _damaged(path, f"it inflates to more than {MOST_INFLATED} times its size")
    return plain


def _next_piece(stream: BinaryIO, path: Path, packed: str) -> bytes:
    try:
        return stream.read(PIECE)
    except MemoryError:
        raise
    except Exception as error:  # each library has exceptions of its own, and OSError of a damaged file has no number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, f"its {packed} data cannot be unpacked ({error or type(error).__name__})") from None


def _opened(raw: BinaryIO, path: Path, packed: str) -> BinaryIO:
    if packed == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if packed in ("bzip2", "xz"):
        return (bz2.BZ2File if packed == "bzip2" else lzma.LZMAFile)(raw)
    for name in ZSTD:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name).open(raw, "rb")
    raise MachineError(
        f"{path}: is packed by zstd, which this Python cannot read; pip install zstandard, or unpack it with "
        "`tar --zstd -xf` and give the folder to --source"
    )


def _damaged(path: Path, what: str) -> DataError:
    found, _ = found_at(path)
    return DataError(f"{path}: not a whole tar, {what}; {found}; {REMEDY}")
