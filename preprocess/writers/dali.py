"""WebDataset shards for DALI: <split>.tar of image files with labels and ids, and <split>.idx, its index.

00000012.jpg  the original file, byte for byte; .png with the packed pixels instead where the original is no plain
              JPEG (CMYK, a PNG in disguise) or was resized, so that every decoder gives the pixels of all engines
00000012.cls  the label as decimal text; not in an unlabelled split
00000012.id   the sample id, the row number, as decimal text

The index is what DALI's wds2idx would write (version 1.2), known here without reading the tar again.
"""

import tarfile
from pathlib import Path
from typing import BinaryIO

from preprocess.decode_pool import Chunk

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


class DaliWriter:
    """Writes one split after the other into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tar: BinaryIO | None = None

    @staticmethod
    def bytes_needed(count: int, side: int) -> int:
        """Files are seldom larger than their pixels; the disk says so if they are."""
        return count * (3 * side * side + 7 * BLOCK) + 4096

    @staticmethod
    def file_names(split: str) -> list[str]:
        return [f"{split}.tar", f"{split}.idx"]

    def open(self, split: str, count: int, side: int, labelled: bool) -> None:
        self.names, self.labelled = self.file_names(split), labelled
        self.at = self.done = 0
        self.lines: list[str] = []
        self.tar = open(self.folder / self.names[0], "wb")  # noqa: SIM115 - until close or discard

    def write(self, chunk: Chunk) -> None:
        pieces: list[bytes] = []
        for record, known in zip(chunk.records, chunk.known, strict=True):
            members = [known.file, ("id", b"%d" % self.done)]
            if self.labelled:
                members.insert(1, ("cls", b"%d" % record.label))
            line = []
            for ending, data in members:
                name = f"{self.done:08d}.{ending}"
                pieces += (tar_header(name, len(data)), data, bytes(-len(data) % BLOCK))
                line.append(f"{ending} {self.at + BLOCK} {len(data)} {name}")
                self.at += BLOCK + len(data) + (-len(data) % BLOCK)
            self.lines.append(" ".join(line) + "\n")
            self.done += 1
        self.tar.write(b"".join(pieces))

    def close(self) -> list[str]:
        """Finish the split."""
        self.tar.write(END)
        self.tar.close()
        with open(self.folder / self.names[1], "w", encoding="ascii") as file:
            file.write(f"v1.2 {self.done}\n")
            file.writelines(self.lines)
        return self.names

    def discard(self) -> None:
        if self.tar is not None:
            self.tar.close()


def tar_header(name: str, size: int) -> bytes:
    """The 512 bytes that tarfile would write for a file of everybody, without time or owner; it takes 30 us for it."""
    head = b"%s%s%011o\0%s" % (name.encode().ljust(100, b"\0"), OWNER, size, TIME)
    total = sum(head) + SUM_OF_REST
    return b"%s%06o\0 %s" % (head, total, REST)


_MODEL = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
OWNER, TIME, REST = _MODEL[100:124], _MODEL[136:148], _MODEL[156:]
SUM_OF_REST = sum(REST) + 8 * ord(" ")  # the checksum counts itself as spaces
