"""The resident format: arrays that numpy maps and a GPU swallows whole.

<split>.images.npy  u8 [N, S, S, 3] RGB, C order
<split>.labels.npy  i64 [N]; not for an unlabelled split
<split>.files.txt   N lines, each image's path in the data set

Images go to the file as they come, by plain writes: a full disk is then an error from `write`, where
a memory map would end the process with SIGBUS.
"""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from preprocess.decode_pool import Chunk

PATH_BYTES = 300  # per image, for the check of free space: label and path line


class ResidentWriter:
    """Writes one split after the other into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.images: BinaryIO | None = None

    @staticmethod
    def bytes_needed(count: int, side: int) -> int:
        return count * (side * side * 3 + PATH_BYTES) + 4096

    @staticmethod
    def file_names(split: str) -> list[str]:
        return [f"{split}.images.npy", f"{split}.labels.npy", f"{split}.files.txt"]

    def open(self, split: str, count: int, side: int, labelled: bool) -> None:
        self.split, self.count, self.side, self.labelled = split, count, side, labelled
        self.labels: list[int] = []
        self.paths: list[str] = []
        self.images = open(self.folder / f"{split}.images.npy", "wb")  # noqa: SIM115 - until close or discard
        self._write_header(count)

    def write(self, chunk: Chunk) -> None:
        self.images.write(chunk.pixels.reshape(-1))
        self.labels.extend(r.label for r in chunk.records)
        self.paths.extend(r.path for r in chunk.records)

    def close(self) -> list[str]:
        """Finish the split; its files are on the disk when this returns."""
        if len(self.paths) < self.count:  # bad images were left out: the header's length is the same for any count
            self.images.seek(0)
            self._write_header(len(self.paths))
        self._finish(self.images)
        names = [f"{self.split}.images.npy", f"{self.split}.files.txt"]
        with open(self.folder / names[1], "wb") as file:
            file.write("".join(f"{path}\n" for path in self.paths).encode())
            self._finish(file)
        if self.labelled:
            names.append(f"{self.split}.labels.npy")
            with open(self.folder / names[2], "wb") as file:
                np.save(file, np.array(self.labels, np.int64))
                self._finish(file)
        return names

    def discard(self) -> None:
        if self.images is not None:
            self.images.close()

    def _write_header(self, count: int) -> None:
        """A version-1.0 .npy header. numpy pads it so that the first axis can change in place."""
        shape = (count, self.side, self.side, 3)
        np.lib.format.write_array_header_1_0(self.images, {"descr": "|u1", "fortran_order": False, "shape": shape})

    @staticmethod
    def _finish(file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.close()
