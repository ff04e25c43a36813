"""Fetches an archive: resumes a partial file, checks size and md5, gives the file its name only when whole."""

import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastres.machine.console import Progress
from fastres.machine.errors import DataError, MachineError, UsageError
from fastres.machine.lock import take_named
from preprocess.disk import disk_faults, require_space

PIECE = 1 << 16  # bytes; small enough that a slow server still moves the bar
TRIES = 3  # attempts in a row that bring nothing
BROKEN = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


@dataclass(frozen=True)
class Archive:
    """A file on a server and how to know that it arrived."""

    url: str
    bytes: int
    md5: str


TINY_IMAGENET = Archive(
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    bytes=248_100_043,
    md5="90528d7ca1a48142e341f4ef8d21d0de",
)


def download(archive: Archive, target: Path, timeout: float = 30.0, pause: float = 0.5) -> Path:
    """Bring `archive` to `target` through `<target>.part`, which a later call resumes.

    timeout: seconds without a byte. pause: seconds before the second attempt, doubled for the third.
    MachineError: the network or the disk failed (what came is kept). DataError: what came is not the
    archive (deleted). UsageError: another process is downloading it.
    """
    part = target.with_name(target.name + ".part")
    with disk_faults(target.parent, archive.bytes), _locked(part) as file:
        try:
            if not target.exists():  # else that other process has just finished
                _Transfer(archive, target, file, timeout, pause).run()
                os.replace(part, target)
        except DataError:
            file.truncate(0)
            raise
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
    return target


def _locked(part: Path) -> BinaryIO:
    file = take_named(part)
    if file is None:
        raise UsageError(f"{part}: another process is downloading it, expected none; wait for it")
    return file


def by_hand(archive: Archive, target: Path) -> str:
    """What to do where this machine cannot download, as the end of a sentence."""
    return (
        f"fetch {archive.url} ({archive.bytes:,} bytes, md5 {archive.md5}) on any machine, put it at "
        f"{target.absolute()} and run the same command again; --small-world needs no network"
    )


class _Transfer:
    """One archive on its way into an open file."""

    def __init__(self, archive: Archive, target: Path, file: BinaryIO, timeout: float, pause: float):
        self.archive, self.target, self.file = archive, target, file
        self.timeout, self.pause = timeout, pause
        self.remedy = by_hand(archive, target)

    def length(self) -> int:
        """Bytes held so far."""
        return self.file.seek(0, os.SEEK_END)

    def run(self) -> None:
        """Fetch until the file has all its bytes, as long as attempts bring some; then check them."""
        if self.length() > self.archive.bytes:
            self.file.truncate(0)
        require_space(self.target.parent, self.archive.bytes - self.length())
        title = f"download {self.target.name}"
        with Progress(self.archive.bytes, title, "B", done=self.length(), lines=True) as self.progress:
            failures = 0
            while (before := self.length()) < self.archive.bytes:
                reason = self.attempt()
                failures = 0 if self.length() > before else failures + 1
                if failures == TRIES:
                    raise MachineError(
                        f"{self.archive.url}: download failed after {before:,} of {self.archive.bytes:,} bytes "
                        f"({reason}), expected a network; {self.remedy}"
                    )
                if failures:
                    time.sleep(self.pause * 2 ** (failures - 1))
        self.file.seek(0)
        md5 = hashlib.file_digest(self.file, "md5").hexdigest()
        if md5 != self.archive.md5:
            raise DataError(
                f"{self.archive.url}: found md5 {md5}, expected {self.archive.md5}: the download was damaged on its "
                f"way and is deleted; run the same command again, or {self.remedy}"
            )
        os.fsync(self.file.fileno())

    def attempt(self) -> str:
        """One request, appending what it brings; returns why it may have brought too little."""
        try:
            self.request()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the server has no more than we hold: ours is not a beginning of its file
                self.restart()
            return f"the server answered {error.code} {error.reason}"
        except BROKEN as error:
            return str(getattr(error, "reason", error)) or type(error).__name__
        return "the connection ended early"

    def restart(self) -> None:
        self.progress.update(-self.length())
        self.file.truncate(0)

    def request(self) -> None:
        have = self.length()
        request = urllib.request.Request(self.archive.url, headers={"User-Agent": "fastres"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if have and not (response.status == 206 and resumed):  # this server knows no ranges
                self.restart()
                have = 0
            piece = response.read1(PIECE)
            self.check_start(response.headers.get("Content-Length"), have, piece)
            while piece:
                self.file.write(piece)
                have += len(piece)
                self.progress.update(len(piece))
                piece = response.read1(min(PIECE, self.archive.bytes - have))  # 0 ends it: no server can overfill

    def check_start(self, length: str | None, have: int, piece: bytes) -> None:
        """Refuse what is visibly another thing before it is saved."""
        if not have and piece.lstrip()[:1] == b"<":
            raise DataError(
                f"{self.archive.url}: found an HTML page, expected a zip: the download failed, perhaps at a proxy's "
                f"or a login page; {self.remedy}"
            )
        announced = have + int(length) if (length or "").isdecimal() else self.archive.bytes
        if announced != self.archive.bytes:
            raise DataError(
                f"{self.archive.url}: the server offers {announced:,} bytes, expected {self.archive.bytes:,}: it is "
                f"another file; {self.remedy}"
            )
