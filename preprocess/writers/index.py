"""What every engine needs besides its pixels: labels and paths, small enough to be read whole.

<split>.labels.npy  i64 [N]; not for an unlabelled split
<split>.files.txt   N lines, each image's path in the data set
"""

from pathlib import Path

import numpy as np

from preprocess.decode_pool import Chunk

BYTES = 300  # per image, for the check of free space: label and path line


class IndexWriter:
    """Writes one split after the other into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    @staticmethod
    def bytes_needed(count: int, side: int) -> int:
        return count * BYTES + 4096

    @staticmethod
    def file_names(split: str) -> list[str]:
        return [f"{split}.labels.npy", f"{split}.files.txt"]

    def open(self, split: str, count: int, side: int, labelled: bool) -> None:
        self.split, self.labelled = split, labelled
        self.labels: list[int] = []
        self.paths: list[str] = []

    def write(self, chunk: Chunk) -> None:
        self.labels.extend(r.label for r in chunk.records)
        self.paths.extend(r.path for r in chunk.records)

    def close(self) -> list[str]:
        """Finish the split."""
        labels, files = self.file_names(self.split)
        with open(self.folder / files, "wb") as file:
            file.write("".join(f"{path}\n" for path in self.paths).encode())
        if not self.labelled:
            return [files]
        with open(self.folder / labels, "wb") as file:
            np.save(file, np.array(self.labels, np.int64))
        return [files, labels]

    def discard(self) -> None:
        """Nothing stays open."""
