"""A data set read in place from its zip: nothing is extracted, so no member can land anywhere.

zipfile reads the directory; members are read here, because zipfile's own way costs 60 µs of interpreter
a member and needs its 120,000-entry directory in every decoding process.
Each member's name, sizes and CRC are checked against the directory: a damaged zip never yields an image.
"""

import hashlib
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from fastres.errors import DataError, MachineError
from preprocess.download import TINY_IMAGENET
from preprocess.tree import SPLITS, hidden, is_image, only_root

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, crc, sizes, lengths
IN_DESCRIPTOR = 0x8  # flag: crc and sizes follow the data instead
ENCRYPTED = 0x1
UTF8_NAME = 0x800
LARGEST_MEMBER = 1 << 28  # bytes; no image of a data set comes near, and no bomb is inflated
TAIL_BYTES = 1 << 24  # the directory of 120,000 members is 10 MB


class Member(NamedTuple):
    """Where one file lies in the zip, as its directory says."""

    name: bytes
    offset: int
    packed_bytes: int
    bytes: int
    crc: int
    method: int


class ZipReader:
    """Reads members by position; opens the zip on first use, once per process."""

    def __init__(self, path: str):
        self.path = path
        self._file: int | None = None

    def __getstate__(self) -> dict:
        return {"path": self.path, "_file": None}

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(self, locator: Member) -> bytes:
        """The member's bytes. DataError when header, sizes or CRC disagree with the directory."""
        member = Member(*locator)
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        header = os.pread(self._file, LOCAL_HEADER.size, member.offset)
        if len(header) < LOCAL_HEADER.size:
            self._damaged(member, "its header is cut off")
        fields = LOCAL_HEADER.unpack(header)
        signature, _, flags, method, _, _, crc, packed_bytes, size, name_bytes, extra_bytes = fields
        if signature != b"PK\x03\x04" or method != member.method:
            self._damaged(member, "its header is not what the directory says")
        sizes = (crc, packed_bytes, size)
        zip64 = 0xFFFFFFFF in (packed_bytes, size)
        if not flags & IN_DESCRIPTOR and not zip64 and sizes != (member.crc, member.packed_bytes, member.bytes):
            self._damaged(member, "its header is not what the directory says")
        start = member.offset + LOCAL_HEADER.size
        body = os.pread(self._file, name_bytes + extra_bytes + member.packed_bytes, start)
        if body[:name_bytes] != member.name:
            self._damaged(member, f"found it under the name {body[:name_bytes][:80]!r}")
        return self._unpack(member, body[name_bytes + extra_bytes :])

    def _unpack(self, member: Member, packed: bytes) -> bytes:
        if len(packed) != member.packed_bytes:
            self._damaged(member, f"found {len(packed):,} bytes, expected {member.packed_bytes:,}")
        data = packed
        if member.method == zipfile.ZIP_DEFLATED:
            try:  # one byte more than promised is enough to see a lie
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.bytes + 1)
            except zlib.error:
                self._damaged(member, "its data cannot be inflated")
        found = zlib.crc32(data)
        if len(data) != member.bytes or found != member.crc:
            self._damaged(member, f"found CRC {found:08x}, expected {member.crc:08x}")
        return data

    def _damaged(self, member: Member, what: str) -> None:
        name = member.name.decode(errors="replace")
        raise DataError(f"{self.path}: {name} is damaged, {what}: {describe(Path(self.path))}")


class ZipTree:
    """A data set in a zip."""

    def __init__(self, path: Path):
        self.name = str(path)
        self.path = path.resolve()
        self.reader = ZipReader(str(self.path))
        members = self._directory()
        names = [name for name in members if not hidden(name)]
        root = only_root(self.name, sorted({p for name in names if (p := _folder_of_train(name)) is not None}))
        prefix = f"{root}/" if root else ""
        self._members = {name[len(prefix) :]: members[name] for name in names if name.startswith(prefix)}
        # Decoding reads, and so checks, the images of the splits. What it will not read is checked here: a flipped
        # bit in the directory may have given an image a name that hides it, and it must not vanish in silence.
        starts = tuple(f"{prefix}{split}/" for split in SPLITS)
        for name, member in members.items():
            if not (name.startswith(starts) and is_image(name) and not hidden(name)):
                self.reader.read(member)

    def _directory(self) -> dict[str, Member]:
        """Every file in the zip by its full name; DataError for what a data set's zip never holds."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
        except PermissionError as error:
            raise MachineError(f"{self.name}: cannot be read ({error.strerror}); check its permissions") from None
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OverflowError, OSError, struct.error):
            raise DataError(f"{self.name}: not a whole zip, {describe(self.path)}") from None
        members = {}
        for entry in entries:
            parts = entry.filename.replace("\\", "/").split("/")
            if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
                raise DataError(
                    f"{self.name}: member {entry.filename!r} points outside the data set, expected names below one "
                    "folder; nothing was written, do not trust this zip"
                )
            if entry.is_dir():
                continue
            if entry.flag_bits & ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{self.name}: member {entry.filename} is encrypted or packed by method {entry.compress_type}, "
                    "expected stored or deflated; unzip it and give the folder to --source"
                )
            room = self.path.stat().st_size - entry.header_offset - LOCAL_HEADER.size
            if entry.header_offset < 0 or entry.compress_size > room or entry.file_size > LARGEST_MEMBER:
                raise DataError(
                    f"{self.name}: {entry.filename} cannot be {entry.compress_size:,} bytes at {entry.header_offset:,} "
                    f"for {entry.file_size:,}: its directory is damaged, {describe(self.path)}"
                )
            if entry.filename in members:
                raise DataError(
                    f"{self.name}: two members are named {entry.filename}, expected one; make the zip anew"
                )
            raw = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8_NAME else "cp437")
            members[entry.filename] = Member(
                raw, entry.header_offset, entry.compress_size, entry.file_size, entry.CRC, entry.compress_type
            )
        return members

    def files(self, split: str) -> list[str]:
        return [name for name in self._members if name.startswith(f"{split}/")]

    def has(self, path: str) -> bool:
        return path in self._members

    def locator(self, path: str) -> Member:
        return self._members[path]

    def read(self, path: str) -> bytes:
        return self.reader.read(self._members[path])


def _folder_of_train(name: str) -> str | None:
    """"a/b" for "a/b/train/...", looking no deeper than two levels; None when there is no train/."""
    folders = name.split("/")[:-1][:3]
    return "/".join(folders[: folders.index("train")]) if "train" in folders else None


def fingerprint_of_zip(path: Path) -> str:
    """A digest of the zip's size, time of change and last 16 MiB, where its directory has every member's CRC.

    It does not see bytes of a member that change in place under the same time of change.
    """
    status = path.stat()
    with open(path, "rb") as file:
        file.seek(max(0, status.st_size - TAIL_BYTES))
        digest = hashlib.sha256(file.read())
    digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def describe(path: Path) -> str:
    """The second half of the sentence about a damaged zip: what lies there, what was expected, the remedy."""
    with open(path, "rb") as file:
        head = file.read(512)
        file.seek(0)
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    remedy = f"delete {path.name} and run the same command again, or download {TINY_IMAGENET.url} by hand"
    if head.lstrip().startswith(b"<"):
        return f"found an HTML page in its place: the download failed; {remedy}"
    return (
        f"found {path.stat().st_size:,} bytes with md5 {md5}, expected {TINY_IMAGENET.bytes:,} bytes with md5 "
        f"{TINY_IMAGENET.md5} if this is the original; {remedy}"
    )
