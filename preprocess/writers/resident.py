"""The resident format: an array that training reads whole, into memory or onto a GPU.

<split>.images.npy  u8 [N, S, S, 3] RGB, C order

Images go to the file as they come, by plain writes: a full disk is then an error from `write`, where
a memory map would end the process with SIGBUS.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from preprocess.decode_pool import Chunk


class ResidentWriter:
    """Writes one split after the other into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.images: BinaryIO | None = None

    @staticmethod
    def bytes_needed(count: int, side: int) -> int:
        return count * side * side * 3 + 4096

    @staticmethod
    def file_names(split: str) -> list[str]:
        return [f"{split}.images.npy"]

    def open(self, split: str, count: int, side: int, labelled: bool) -> None:
        self.name, self.count, self.side, self.done = self.file_names(split)[0], count, side, 0
        self.images = open(self.folder / self.name, "wb")  # noqa: SIM115 - until close or discard
        self._write_header(count)

    def write(self, chunk: Chunk) -> None:
        self.images.write(chunk.pixels.reshape(-1))
        self.done += len(chunk.pixels)

    def close(self) -> list[str]:
        """Finish the split."""
        if self.done < self.count:  # bad images were left out: the header's length is the same for any count
            self.images.seek(0)
            self._write_header(self.done)
        self.images.close()
        return [self.name]

    def discard(self) -> None:
        if self.images is not None:
            self.images.close()

    def _write_header(self, count: int) -> None:
        """A version-1.0 .npy header. numpy pads it so that the first axis can change in place."""
        shape = (count, self.side, self.side, 3)
        np.lib.format.write_array_header_1_0(self.images, {"descr": "|u1", "fortran_order": False, "shape": shape})
