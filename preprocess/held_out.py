"""pack.py --val-fraction: a validation set held out of train, where the data set has none.

By class: each gives its share, rounded, at least one image where it has two and never its last one. Images of equal
pixels, whatever their files and classes, stay on one side, so that nothing of val is trained on. Which images they are
follows from the seed, their paths and which pixels are equal: a larger share has those of a smaller one as far as
equal pixels allow, and the order of files, the formats and the number of processes do not matter.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping

from fastres.data.decode import Recipe
from fastres.machine.console import Progress
from fastres.machine.errors import DataError, UsageError
from preprocess.decode_pool import decode_all
from preprocess.sources.listing import nfc
from preprocess.sources.records import Layout, Record
from preprocess.sources.tree import Tree


def refuse_second(name: str, layout: Layout) -> None:
    """UsageError where the data set has validation images of its own."""
    if count := len(layout.splits["val"]):
        raise UsageError(
            f"--val-fraction: {name} has {count:,} validation images of its own, expected none; leave the option out, "
            "or take them out of the data set"
        )


def look(
    tree: Tree, records: list[Record], recipe: Recipe, workers: int | None
) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """What tells equal pixels apart, by path, and (path, reason) of the images that are bad: one more decode of all."""
    pixels, bad = {}, []
    with Progress(len(records), "look for equal images", lines=True) as progress:
        for chunk in decode_all(tree, {"train": records}, recipe._replace(files=False), workers):
            for record, known in zip(chunk.records, chunk.known, strict=True):
                pixels[record.path] = known.fingerprint
            bad += chunk.bad
            progress.update(len(chunk.records) + len(chunk.bad))
    return pixels, bad


def hold_out(layout: Layout, pixels: Mapping[str, bytes], fraction: float, seed: int) -> Layout:
    """The layout with `fraction` of each class's images in val, both splits in train's order.

    Images that `pixels` does not know, the bad ones, stay in train and count for no share. DataError where no class has
    two different images.
    """
    train = layout.splits["train"]
    held = _chosen([record for record in train if record.path in pixels], pixels, fraction, seed)
    if not held:
        raise DataError(
            f"--val-fraction {fraction:g}: found no class with two different images among the {len(train):,} of train, "
            "expected one at least; add images"
        )
    sides = {
        "train": [record for record in train if record.path not in held],
        "val": [record for record in train if record.path in held],
    }
    return Layout(layout.classes, {**layout.splits, **sides})


def _chosen(records: list[Record], pixels: Mapping[str, bytes], fraction: float, seed: int) -> set[str]:
    """The paths that go to val."""
    equal: dict[bytes, list[Record]] = {}
    for record in records:
        equal.setdefault(pixels[record.path], []).append(record)
    groups = sorted(equal.values(), key=lambda group: min(_draw(seed, record.path) for record in group))
    sizes = [Counter(record.label for record in group) for group in groups]
    left = Counter(record.label for record in records)  # of train, by class
    room = Counter({label: _share(count, fraction) for label, count in left.items()})
    taken: set[int] = set()
    for index, size in enumerate(sizes):
        if all(count <= room[label] for label, count in size.items()):
            taken.add(index)
            room.subtract(size)
            left.subtract(size)
    for label in sorted(left):
        if any(label in sizes[index] for index in taken):
            continue  # else each of its groups is larger than its share
        fits = [i for i, size in enumerate(sizes) if label in size and all(left[c] > n for c, n in size.items())]
        if fits:
            index = min(fits, key=lambda index: len(groups[index]))
            taken.add(index)
            left.subtract(sizes[index])
    return {record.path for index in taken for record in groups[index]}


def _share(count: int, fraction: float) -> int:
    """How many of a class's images go to val."""
    return min(count - 1, max(1, int(fraction * count + 0.5)))


def _draw(seed: int, path: str) -> bytes:
    """A draw of its own for each image, whatever the order of the others."""
    return hashlib.blake2b(f"{seed} {nfc(path)}".encode(errors="surrogateescape"), digest_size=16).digest()
