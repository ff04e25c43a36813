"""What zips and tars have in common: what a file is by its first bytes, which names a member may have, the tree."""

import hashlib
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastres.data.formats import HEAD_BYTES, IMAGE_ENDINGS, format_of
from fastres.machine.errors import DataError
from preprocess.sources.tree import Ignored, Reader, hidden, only_root, root_unless_whole, split_folders, split_of

TAIL_BYTES = 1 << 24  # the directory of a zip of 120,000 members is 10 MB
LARGEST_MEMBER = 1 << 28  # bytes; no image of a data set comes near, and no bomb is inflated
TAR_MAGIC, CHECKSUM = 257, slice(148, 156)  # where a tar's header has "ustar", and its checksum in octal digits
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
FOREIGN = {
    b"Rar!\x1a\x07": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"MSCF": "a CAB archive",
    b"xar!": "a XAR archive",
    b"LZIP": "an lzip file",
    b"\x04\x22\x4d\x18": "an LZ4 file",
    b"\x1f\x9d": "a .Z file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3\0": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF",
    b"\x80\x04\x95": "a Python pickle",
}


def kind_of(path: Path) -> str:
    """ "zip", "tar" or what a tar is packed in, by the first bytes; DataError for what is visibly something else.

    A file that says nothing of itself counts as a zip: its reader finds out what is wrong.
    """
    with open(path, "rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head[TAR_MAGIC : TAR_MAGIC + 5] == b"ustar" or _old_tar(head):
        return "tar"
    for start, name in PACKED.items():
        if head.startswith(start):
            return name
    foreign = next((name for start, name in FOREIGN.items() if head.startswith(start)), None)
    image = format_of(head[:HEAD_BYTES])
    if foreign or image:
        raise DataError(
            f"{path}: found {foreign or f'one {image} image'} by its first bytes, expected a folder, a zip or a tar; "
            "unpack it and give the folder to --source"
        )
    return "zip"


def _old_tar(head: bytes) -> bool:
    """Whether this is a tar's header from before they had a magic: its checksum says so.

    tarfile takes eight zeros for a checksum of 0, which the first bytes of a gzip of zeros add up to now and then.
    """
    if not head[CHECKSUM].strip(b" \0").isdigit():
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def plain_name(archive: str, member: str, name: str) -> str:
    """`name`, with "/" between its parts, as a path below the archive's top. DataError where it leads elsewhere.

    member: the name as the archive has it, for the message.
    """
    parts, read_there = name.split("/"), re.split(r"[/\\]", name)  # Windows would take either
    if ".." in read_there or read_there[0] == "" or re.fullmatch("[A-Za-z]:", read_there[0]):
        raise DataError(
            f"{archive}: member {member!r} points outside the data set, expected names below one folder; nothing was "
            "written, do not trust this archive"
        )
    return "/".join(part for part in parts if part not in ("", "."))


def too_large(archive: str, member: str, size: int) -> DataError:
    """The fault of a file that would be read and is not unpacked into memory."""
    return DataError(
        f"{archive}: {member} has {size:,} bytes, expected {LARGEST_MEMBER:,} at most of what is read; unpack the "
        "archive and give the folder to --source, or leave that file out"
    )


class MemberTree:
    """A data set in an archive. members: full name -> locator; folders: full names of those that are listed.
    whole_is_train: as FolderTree has it, for an archive with one folder at its top."""

    def __init__(
        self, name: str, reader: Reader, members: dict[str, Any], folders: set[str], whole_is_train: bool = False
    ):
        self.name, self.reader, self.ignored = name, reader, Ignored()
        names = [n for n in members if not hidden(n)]
        every = {folder for n in names for folder in _above(n)} | {f for f in folders if not hidden(f)}
        every |= {above for folder in folders if not hidden(folder) for above in _above(folder)}
        roots = {r for folder in every if (r := _root_by(folder)) is not None}
        tops = {folder.split("/")[0] for folder in every}
        if whole_is_train and len(tops) == 1 and "" not in roots:
            (top,) = tops
            pictured = {n.rpartition("/")[0] for n in names if n.lower().endswith(IMAGE_ENDINGS)}
            root = root_unless_whole(name, sorted(roots), top, lambda f: _inside(every, f), pictured.__contains__)
        else:
            root = only_root(name, sorted(roots), tops)
        whole = root is None
        self.prefix = f"{root}/" if root else ""
        self._members = {n[len(self.prefix) :]: m for n, m in members.items() if n.startswith(self.prefix)}
        self._folders = {f[len(self.prefix) :] for f in every if f.startswith(self.prefix)}
        if whole:
            self.folders, self.beside = {"train": tops.pop()}, []
        else:
            self.folders, self.beside = split_folders(name, (f for f in self._folders if f and "/" not in f))

    def files(self, split: str) -> list[str]:
        paths = []
        for name in self._members:
            if split in self.folders and name.startswith(f"{self.folders[split]}/"):
                if hidden(self.prefix + name):
                    self.ignored.add("hidden", name)
                else:
                    paths.append(name)
        return paths

    def inside(self, folder: str) -> list[str]:
        return _inside(self._folders, folder)

    def has(self, path: str) -> bool:
        return path in self._members

    def head(self, path: str) -> bytes:
        """The first bytes; none of a file that is too large to be an image here."""
        return self.read(path)[:HEAD_BYTES] if self._members[path].bytes <= LARGEST_MEMBER else b""

    def locator(self, path: str) -> Any:
        return self._members[path]

    def read(self, path: str) -> bytes:
        return self.reader.read(self._members[path])


def _inside(folders: Iterable[str], folder: str) -> list[str]:
    """Names of those of the folders that lie in one."""
    return sorted(f.rpartition("/")[2] for f in folders if f and f.rpartition("/")[0] == folder)


def _above(name: str) -> list[str]:
    """The folders that a name lies in: "a/b/c" -> "a", "a/b"."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _root_by(folder: str) -> str | None:
    """ "a/b" for "a/b/train", looking no deeper than two levels; None for any other folder."""
    root, _, last = folder.rpartition("/")
    return root if split_of(last) == "train" and folder.count("/") <= 2 else None


def fingerprint_of_archive(path: Path) -> str:
    """A digest of the file's size, time of change and last 16 MiB, where a zip's directory has every member's CRC.

    It does not see bytes of a member that change in place under the same time of change.
    """
    status = path.stat()
    with open(path, "rb") as file:
        file.seek(max(0, status.st_size - TAIL_BYTES))
        digest = hashlib.sha256(file.read())
    digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def found_at(path: Path) -> tuple[str, bool]:
    """ "found 7 bytes with md5 ...", and whether it is an HTML page."""
    with open(path, "rb") as file:
        head = file.read(512)
        file.seek(0)
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    return f"found {path.stat().st_size:,} bytes with md5 {md5}", head.lstrip().startswith(b"<")
