"""A data set read in place from its zip: nothing is extracted, so no member can land anywhere.

zipfile reads the directory; members are read here, because zipfile's own way costs 60 µs of interpreter
a member and needs its 120,000-entry directory in every decoding process.
Each member's name, sizes and CRC are checked against the directory: a damaged zip never yields an image.
"""

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from fastres.data.formats import IMAGE_ENDINGS
from fastres.machine.errors import DataError, MachineError
from preprocess.sources.archive import LARGEST_MEMBER, MemberTree, found_at, plain_name, too_large
from preprocess.sources.download import TINY_IMAGENET
from preprocess.sources.tree import hidden

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, crc, sizes, lengths
IN_DESCRIPTOR = 0x8  # flag: crc and sizes follow the data instead
ENCRYPTED = 0x1
UTF8_NAME = 0x800
SPECIAL = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


class Member(NamedTuple):
    """Where one file lies in the zip, as its directory says."""

    name: bytes
    offset: int
    packed_bytes: int
    bytes: int
    crc: int
    method: int


def _decoded(raw: bytes, shown: str) -> str:
    """A member's name. macOS writes UTF-8 without saying so, and hardly any text in code page 437 is valid UTF-8 by
    chance: its letters beyond ASCII would have to come in UTF-8's pairs. What is not stays as zipfile has it."""
    try:
        return raw.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        return shown


class ZipReader:
    """Reads members by position; opens the zip on first use, once per process."""

    def __init__(self, path: str):
        self.path = path
        self._file: int | None = None

    def __getstate__(self) -> dict:
        return {"path": self.path, "_file": None}

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
        if member.bytes > LARGEST_MEMBER:
            raise too_large(self.path, member.name.decode(errors="replace"), member.bytes)
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


class ZipTree(MemberTree):
    """A data set in a zip."""

    def __init__(self, path: Path, whole_is_train: bool = False):
        self.path, reader = path.resolve(), ZipReader(str(path.resolve()))
        members, folders = self._directory(str(path))
        super().__init__(str(path), reader, members, folders, whole_is_train)
        # Decoding reads, and so checks, the images of the splits. What it will not read is checked here: a flipped
        # bit in the directory may have given an image a name that hides it, and it must not vanish in silence.
        starts = tuple(f"{self.prefix}{folder}/" for folder in self.folders.values())
        for name, member in members.items():
            decoded = name.startswith(starts) and name.lower().endswith(IMAGE_ENDINGS) and not hidden(name)
            if not decoded and member.bytes <= LARGEST_MEMBER:
                self.reader.read(member)

    def _directory(self, shown: str) -> tuple[dict[str, Member], set[str]]:
        """Every file and folder in the zip by its full name; DataError for what a data set's zip never holds."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
        except PermissionError as error:
            raise MachineError(f"{shown}: cannot be read ({error.strerror}); check its permissions") from None
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OverflowError, OSError, struct.error):
            raise DataError(f"{shown}: not a whole zip, {describe(self.path)}") from None
        members: dict[str, Member] = {}
        folders: set[str] = set()
        # a zip made on Windows may have "\\" where the format asks for "/"; elsewhere it is a letter, or half of one
        windows = all("/" not in entry.orig_filename for entry in entries)
        for entry in entries:
            raw = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8_NAME else "cp437")
            name = _decoded(raw, entry.filename)
            name = plain_name(shown, entry.filename, name.replace("\\", "/") if windows else name)
            if entry.filename.endswith(("/", "\\") if windows else "/"):
                folders.add(name)
                continue
            self._check(shown, entry)
            if name in members:
                raise DataError(f"{shown}: two members are named {name}, expected one; make the zip anew")
            members[name] = Member(
                raw, entry.header_offset, entry.compress_size, entry.file_size, entry.CRC, entry.compress_type
            )
        return members, folders - {""}

    def _check(self, shown: str, entry: zipfile.ZipInfo) -> None:
        """DataError for a member that cannot be read here, or cannot be what its entry says."""
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{shown}: member {entry.filename} is encrypted or packed by method {entry.compress_type}, "
                "expected stored or deflated; unzip it and give the folder to --source"
            )
        if stat.S_IFMT(entry.external_attr >> 16) in SPECIAL:
            raise DataError(
                f"{shown}: member {entry.filename} is a link or no regular file, expected files and folders; unzip it "
                "and give the folder to --source"
            )
        room = self.path.stat().st_size - entry.header_offset - LOCAL_HEADER.size
        if entry.file_size > LARGEST_MEMBER and entry.filename.lower().endswith(IMAGE_ENDINGS):
            raise too_large(shown, entry.filename, entry.file_size)
        if entry.header_offset < 0 or entry.compress_size > room:
            raise DataError(
                f"{shown}: {entry.filename} cannot be {entry.compress_size:,} bytes at {entry.header_offset:,} "
                f"for {entry.file_size:,}: its directory is damaged, {describe(self.path)}"
            )


def describe(path: Path) -> str:
    """The second half of the sentence about a damaged zip: what lies there, what was expected, the remedy."""
    found, is_page = found_at(path)
    is_original = "tiny-imagenet" in path.name.lower()
    remedy = "get it again, whole" + (f"; the original lies at {TINY_IMAGENET.url}" if is_original else "")
    if is_page:
        return f"found an HTML page in its place: the download failed; {remedy}"
    original = f"{TINY_IMAGENET.bytes:,} bytes with md5 {TINY_IMAGENET.md5} if this is the original"
    return f"{found}, expected {original}; {remedy}"
