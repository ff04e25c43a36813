"""Which side the images of a data set have, from a look at the first of them."""

from collections import Counter

from fastres.data.decode import open_image
from fastres.data.formats import NAMES
from fastres.machine.errors import DataError, UsageError, first_line
from preprocess.sources.records import Record
from preprocess.sources.tree import Tree

PROBES = 15  # images asked for their size


def side_of(tree: Tree, records: list[Record]) -> int:
    """S: the side that most of the first images have, so that one odd image among them is named, not obeyed."""
    sizes: Counter[tuple[int, int]] = Counter()
    reason = ""
    for tried, record in enumerate(records):
        if tried >= PROBES and sizes:
            break
        try:
            sizes[open_image(tree.read(record.path)).size] += 1
        except DataError:
            raise
        except Exception as error:  # it will be listed with its reason when its turn comes
            reason = reason or f"{record.path}: {first_line(error)}"
    if not sizes:
        raise DataError(
            f"{tree.name}: found no image that can be read among the {len(records):,} of train, expected {NAMES}; "
            f"mend what is said of the first, {reason}"
        )
    (width, height), _ = sizes.most_common(1)[0]
    if width != height:
        raise DataError(
            f"{tree.name}: {records[0].path} and others: found {width}x{height} pixels, expected squares; "
            "bring them to one size with --side S"
        )
    if width % 8:
        raise UsageError(
            f"{tree.name}: found images of {width}x{width} pixels, expected a side that is a multiple of 8 "
            "(a crop is 7/8 of it); bring them to one with --side S"
        )
    return width
