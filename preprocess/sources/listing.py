"""What lies in a tree's splits: which files are images, and an account of those that are not."""

import unicodedata

from fastres.data.formats import IMAGE_ENDINGS, RAW_ENDINGS, format_of
from fastres.machine.errors import DataError
from preprocess.sources.tree import Tree

ANNOTATIONS = "val_annotations.txt"  # in the folder of val: read, where wnids.txt says that it counts


def images(tree: Tree, split: str) -> list[str]:
    """Paths of the split's images, in no particular order; every other file is noted in tree.ignored."""
    paths = []
    for path in tree.files(split):
        if is_image(tree, path):
            _check_name(tree, path)
            paths.append(path)
        elif not path.endswith(f"/{ANNOTATIONS}"):
            tree.ignored.add(ending(path), path)
    return paths


def is_image(tree: Tree, path: str) -> bool:
    """Whether the name says image, or the first bytes do. Whether it is a whole one is for the decoder."""
    lower = path.lower()
    if lower.endswith(IMAGE_ENDINGS):
        return True
    return not lower.endswith(RAW_ENDINGS) and format_of(tree.head(path)) is not None


def ending(path: str) -> str:
    """ ".txt"; "no ending" where the name has none."""
    _, dot, last = path.rsplit("/", 1)[-1].rpartition(".")
    return f".{last.lower()}" if dot else "no ending"


def nfc(name: str) -> str:
    """A name as most systems compose its accents: macOS writes e and an accent where others write one letter."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def nfd(name: str) -> str:
    """A name as macOS writes its accents."""
    return name if name.isascii() else unicodedata.normalize("NFD", name)


def flaw(name: str) -> str:
    """Why a name cannot be one line of UTF-8, in words; "" where it can."""
    if name.isprintable():
        return ""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "bytes that are no UTF-8"
    return "" if name.splitlines() == [name] else "a line break"


def _check_name(tree: Tree, path: str) -> None:
    """A name that files.txt cannot hold is an error."""
    if what := flaw(path):
        raise DataError(f"{tree.name}: file name {path!r} has {what}, expected one line of text; rename the file")
