"""The formats that one decode is written to: one file per engine, all behind the same three calls.

    writer = WRITERS["resident"](folder)
    writer.open(split, count, side, labelled)   # count: at most so many rows will follow
    writer.write(chunk)                         # any number of times, in the order of the sample ids
    writer.close()                              # -> names of the files, whole; pack.py sees them to the disk
    writer.discard()                            # once, at the very end or after a failure

All chunks of one split come before the next split's `open`. A writer that needs more than pixels (the
original bytes, say) gets it as another field of Chunk, so that nothing is read or decoded twice.
"""

from pathlib import Path
from typing import Protocol

from preprocess.decode_pool import Chunk
from preprocess.writers.dali import DaliWriter
from preprocess.writers.ffcv import FfcvWriter
from preprocess.writers.index import IndexWriter
from preprocess.writers.resident import ResidentWriter


class Writer(Protocol):
    """What pack.py expects of a format."""

    def __init__(self, folder: Path): ...
    def open(self, split: str, count: int, side: int, labelled: bool) -> None: ...
    def write(self, chunk: Chunk) -> None: ...
    def close(self) -> list[str]: ...

    def discard(self) -> None:
        """Let go of whatever is still open."""
        ...

    @staticmethod
    def bytes_needed(count: int, side: int) -> int:
        """Upper bound for one split, for the check of free space."""
        ...

    @staticmethod
    def file_names(split: str) -> list[str]:
        """Every name that the format may use for a split, so that leftovers of an older packing can go."""
        ...


WRITERS: dict[str, type[Writer]] = {"resident": ResidentWriter, "ffcv": FfcvWriter, "dali": DaliWriter}
ALWAYS: tuple[type[Writer], ...] = (IndexWriter,)  # what every engine reads
NEED_FILES = {"dali"}  # formats that hold image files, not only pixels
