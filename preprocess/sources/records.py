"""What every source gives: classes in label order, and for each split its images with their labels."""

import re
from collections.abc import Callable
from typing import NamedTuple

from fastres.data.manifest import ClassInfo
from fastres.machine.console import say
from preprocess.sources.listing import nfc
from preprocess.sources.tree import Tree

UNLABELLED = -1
HOLD_BACK = ", or hold a share of the training images back with --val-fraction 0.2"  # where val has no image


class Record(NamedTuple):
    """One image: its path in the tree and its class index, UNLABELLED in a test split without labels."""

    path: str
    label: int


class Layout(NamedTuple):
    """Classes in label order; the records of each split in the order of their sample ids."""

    classes: tuple[ClassInfo, ...]
    splits: dict[str, list[Record]]


LONGEST = 4_000  # digits in a row that count as a number: Python reads no more than 4,300


def natural(name: str) -> tuple:
    """Sort key: a name with its numbers as numbers, so that test_2 comes before test_10, then as it is."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(p[:LONGEST]) if i % 2 else p for i, p in enumerate(parts)), name


def by_path(record: Record) -> tuple:
    """Sort key: the whole path, see `natural`."""
    return natural(record.path)


def test_records(
    tree: Tree, paths: list[str], labels: list[int], have: str, key: Callable[[Record], tuple]
) -> list[Record]:
    """Test images by `key`, labelled where each of them has a class in `labels`, and otherwise all UNLABELLED.

    have  what an image with a class does, in words: "lie in folders of classes"
    """
    if UNLABELLED in labels:
        known, other = len(labels) - labels.count(UNLABELLED), paths[labels.index(UNLABELLED)]
        if known:
            say(
                f"{tree.name}: {known} of {len(paths)} test images {have}, and others, such as {other}, do not: packed "
                "as unlabelled"
            )
        labels = [UNLABELLED] * len(paths)
    return sorted(map(Record, paths, labels), key=key)


def in_class_folders(
    tree: Tree, paths: list[str], label_of: dict[str, int], key: Callable[[Record], tuple]
) -> list[Record]:
    """Test images whose classes are the folders that they lie in, right below the split's."""
    folders = [nfc(path).split("/")[1:-1] for path in paths]
    labels = [label_of.get(inside[0], UNLABELLED) if inside else UNLABELLED for inside in folders]
    return test_records(tree, paths, labels, "lie in folders of classes", key)
