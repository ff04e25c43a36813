"""A data set's files behind one interface, whether they lie in a folder or in an archive that stays packed.

A tree lists paths relative to the data set's root (the folder that holds train/, found up to two levels
down). Reading goes through a *reader* and *locators*, both small and picklable, so that decoding
processes need neither the listing nor the archive's directory of 120,000 entries.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from fastres.data.decode_chunk import Reader
from fastres.machine.errors import DataError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {  # what a split's folder may be called, in any case of letters
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
TEXT_FILES = ("wnids.txt", "words.txt", "val/val_annotations.txt")
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # of other systems, in every folder: not worth a word


class Ignored:
    """What lies in the splits' folders and is not packed, counted by kind with an example."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict] = {}

    def add(self, kind: str, path: str) -> None:
        name = path.rsplit("/", 1)[-1]
        if name in LITTER or name.startswith("._"):
            return
        entry = self.kinds.setdefault(kind, {"count": 0, "example": path})
        entry["count"] += 1
        entry["example"] = min(entry["example"], path)


class Tree(Protocol):
    """What the layout code needs to know about a source.

    name     for messages: the path as the user knows it
    folders  split -> its folder's name; absent splits have none
    beside   other folders beside those, which nothing is read from
    """

    name: str
    reader: Reader
    folders: dict[str, str]
    beside: list[str]
    ignored: Ignored

    def files(self, split: str) -> list[str]: ...
    def inside(self, folder: str) -> list[str]: ...  # names of the folders in a folder, sorted, empty ones too
    def has(self, path: str) -> bool: ...
    def head(self, path: str) -> bytes: ...  # the first HEAD_BYTES; none of what cannot be read
    def locator(self, path: str) -> Any: ...
    def read(self, path: str) -> bytes: ...


def hidden(path: str) -> bool:
    """Whether some part of the path is a system's litter: .DS_Store, ._x.JPEG, __MACOSX."""
    return path.startswith(".") or "/." in path or "__MACOSX" in path.split("/")


def split_of(folder: str) -> str | None:
    """The split that a folder's name means."""
    return next((split for split, names in SPLIT_NAMES.items() if folder.lower() in names), None)


def split_folders(name: str, folders: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Which of the root's folders are which splits, and the others. DataError where two mean the same split."""
    found: dict[str, str] = {}
    others = []
    for folder in sorted(folders):
        split = split_of(folder)
        if split is None:
            others.append(folder)
        elif split in found:
            raise DataError(
                f"{name}: found {found[split]}/ and {folder}/, expected one folder for {split}; move one of them away"
            )
        else:
            found[split] = folder
    return found, others


def only_root(name: str, candidates: list[str], seen: Iterable[str] = ()) -> str:
    """The shallowest of the folders that hold train/, given as paths with "/"; "" is the top itself.

    seen: the folders at the top, for the message.
    """
    if not candidates:
        shown = ", ".join(f"{folder}/" for folder in sorted(seen)[:5])
        raise DataError(
            f"{name}: found no train/ folder here or up to two levels below{f', only {shown}' if shown else ''}, "
            "expected train/<label>/ and val/<label>/ with the images of each label (or the layout of "
            "tiny-imagenet-200, with wnids.txt); check that --source names the data set, or sort the images so; where "
            "one folder has those of the labels and nothing else, name it, and --val-fraction 0.2 holds a validation "
            "set out"
        )
    depth = min(len(c.split("/")) if c else 0 for c in candidates)
    shallowest = sorted(c for c in candidates if (len(c.split("/")) if c else 0) == depth)
    if len(shallowest) > 1:
        raise DataError(
            f"{name}: found several data sets ({', '.join(shallowest)}), expected one; name it with --source"
        )
    return shallowest[0]


def root_unless_whole(
    name: str, candidates: list[str], top: str, inside: Callable[[str], list[str]], pictured: Callable[[str], bool]
) -> str | None:
    """As only_root, where `top` may be a train/ itself, with the folders of the labels in it: None then.

    candidates  the folders that hold train/; inside: names of the folders in one; pictured: whether it holds an image

    DataError where it could be read in two ways, or in none.
    """
    others = [folder for folder in inside(top) if split_of(folder) is None]
    found = []
    for candidate in candidates:
        train = _join(candidate, next(folder for folder in inside(candidate) if split_of(folder) == "train"))
        label = candidate == top and others and pictured(train) and not inside(train)  # a class that is called so
        found += [] if label else [candidate]
    for candidate in found:
        beside = [folder for above in _way(top, candidate) for folder in inside(above)]
        labels = all(_is_label(_join(top, folder), inside, pictured) for folder in others)
        if candidate == top and len(others) > 1 and labels and len(inside(top)) == len(others) + 1:
            shown = ", ".join(f"{folder}/" for folder in others[:5])
            raise DataError(
                f"{name}: found a train/ and beside it folders of images alone ({shown}), expected a data set or "
                "folders of labels; name train with --source, or give it another name where it is a label too"
            )
        if len(beside) > len(_way(top, candidate)):
            shown = ", ".join(f"{folder}/" for folder in beside[:5])
            raise DataError(
                f"{name}: found a train/ in {candidate}/ and other folders beside it ({shown}), expected a data set or "
                f"folders of labels; name {candidate} with --source, or give the folder in it another name"
            )
    if found or not others or not all(_is_label(_join(top, folder), inside, pictured) for folder in inside(top)):
        return only_root(name, found, inside(top))
    return None


def _is_label(folder: str, inside: Callable[[str], list[str]], pictured: Callable[[str], bool]) -> bool:
    """Whether a folder is one label's: it holds images, perhaps in one folder more, or nothing at all."""
    while not pictured(folder) and len(inside(folder)) == 1:
        folder = _join(folder, inside(folder)[0])
    return pictured(folder) or not inside(folder)


def _way(top: str, folder: str) -> list[str]:
    """The folders from `top` down to the one that `folder` lies in; none where they are the same."""
    way = []
    while folder != top:
        folder = folder.rpartition("/")[0]
        way.append(folder)
    return way


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
