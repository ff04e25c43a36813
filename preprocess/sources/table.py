"""A CSV that names the images: a row an image, with the columns file, label and, where it likes, split.

file   a path below the CSV's folder, which need not be laid out in any way; links are followed
label  the class; classes are sorted by it, and it is also the name that is shown. A test image needs none; where
       each has one, the split is scored
split  train, val or test, or another name that a folder of these may have; without the column all rows are train

A first line of these names is a header, and the columns may then be in any order. Delimiters are commas, semicolons or
tabs; fields may be quoted. The text is UTF-8, UTF-16 with its mark, or Latin-1. Rows may be in any order.
"""

import hashlib
import os
from pathlib import Path

from fastres.data.formats import HEAD_BYTES
from fastres.data.manifest import ClassInfo
from fastres.machine.errors import DataError
from preprocess.sources.csv_rows import Row, fault
from preprocess.sources.folder_tree import FolderReader
from preprocess.sources.image_folder import by_path
from preprocess.sources.records import HOLD_BACK, UNLABELLED, Layout, Record, test_records
from preprocess.sources.tree import SPLITS, Ignored

ENDINGS = (".csv", ".tsv")


class TableTree:
    """The images that a CSV lists, as a tree (see tree.py): without folders of splits, without text files."""

    def __init__(self, path: Path, rows: list[Row]):
        self.name, self.rows = str(path), rows
        self.root = path.parent.resolve()
        self.reader = FolderReader(str(self.root))
        self.folders, self.beside, self.ignored = {}, [], Ignored()

    def files(self, split: str) -> list[str]:
        return [row.path for row in self.rows if row.split == split]

    def inside(self, folder: str) -> list[str]:
        return []

    def has(self, path: str) -> bool:
        return False

    def head(self, path: str) -> bytes:
        return self.read(path)[:HEAD_BYTES]

    def locator(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes:
        return self.reader.read(path)


def read_layout(tree: TableTree, without_val: bool = False) -> Layout:
    """Classes, order and labels of all rows. DataError where they are no data set; `without_val`: none is expected."""
    rows = {split: [row for row in tree.rows if row.split == split] for split in SPLITS}
    for split in ("train",) if without_val else ("train", "val"):
        if not rows[split]:
            raise DataError(
                f"{tree.name}: found no row of {split}, expected some; say which they are in a third column, "
                f"split{HOLD_BACK if split == 'val' else ''}"
            )
    labels = sorted({row.label for row in rows["train"]})
    if len(labels) == 1:
        raise DataError(f"{tree.name}: found one class only ({labels[0]}), expected at least two; label the images")
    index = {label: i for i, label in enumerate(labels)}
    for row in rows["val"]:
        if row.label not in index:
            found = f"has the label {row.label!r}, which no row of train has"
            raise fault(Path(tree.name), row.line, found, f"one of its {len(labels)} classes", "mend the label")
    splits = {
        "train": sorted((Record(r.path, index[r.label]) for r in rows["train"]), key=lambda r: (r.label, *by_path(r))),
        "val": sorted((Record(r.path, index[r.label]) for r in rows["val"]), key=by_path),
    }
    if rows["test"]:
        paths, known = [row.path for row in rows["test"]], [index.get(row.label, UNLABELLED) for row in rows["test"]]
        splits["test"] = test_records(tree, paths, known, "have a label that train has", by_path)
    return Layout(tuple(ClassInfo(label, label) for label in labels), splits)


def fingerprint(table: Path, rows: list[Row]) -> str:
    """A digest of what the rows say, and of every image's number, size and time of change, without opening it."""
    digest, root = hashlib.sha256(), table.parent.resolve()
    for row in sorted(rows, key=lambda row: row.path):
        try:
            status = os.stat(root / row.path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:  # a link to itself: the decoder will say so
            seen = (-1, -1, -1)
        digest.update(repr((row.path, row.label, row.split, *seen)).encode())
    return digest.hexdigest()
