"""Any image folder: train/<label>/... and val/<label>/..., the layout of torchvision's ImageFolder.

Classes are the folders of train, sorted by name, which is also the name that is shown (words.txt may give another).
Names are compared as they look (NFC), so that a folder unpacked on macOS is the class of one made elsewhere.
Images lie below their class folder at any depth; test/ may be absent, and is labelled where it has the same folders.
Order of sample ids: train by class, then file name; val and test by path, numbers as numbers.
"""

from fastres.data.manifest import ClassInfo
from fastres.machine.console import say
from fastres.machine.errors import DataError
from preprocess.sources.listing import images, nfc
from preprocess.sources.records import HOLD_BACK, Layout, Record, by_path, in_class_folders
from preprocess.sources.tiny_imagenet import class_names
from preprocess.sources.tree import SPLITS, Tree


def read_layout(tree: Tree, skip_empty: bool = False, without_val: bool = False) -> Layout:
    """Classes, order and labels of everything in the tree. DataError for whatever is not as described above.

    skip_empty: whether a folder of train/ without an image is left out, with a word on stderr, or an error.
    without_val: whether there may be no validation image.
    """
    paths = {split: images(tree, split) for split in SPLITS}
    for split in ("train",) if without_val else ("train", "val"):
        if not paths[split]:
            beside = ", ".join(f"{folder}/" for folder in [*tree.folders.values(), *tree.beside])
            found = f"found no image in {tree.folders.get(split, split)}/ (the folders here: {beside})"
            raise _unlike(tree, found, HOLD_BACK if split == "val" else "")
    labels, empty = _classes(tree, paths["train"], skip_empty)
    for split in ("val", "test"):
        paths[split] = _without(tree, paths[split], empty)
    names, index = class_names(tree), {label: i for i, label in enumerate(labels)}
    for path in paths["val"]:
        if _label(tree, path) not in index:
            raise _unlike(tree, f"found {path}, whose folder is no class of train/ ({len(labels)} classes)")
    splits = {
        split: sorted((Record(path, index[_label(tree, path)]) for path in paths[split]), key=key)
        for split, key in (("train", lambda r: (r.label, *by_path(r))), ("val", by_path))
    }
    if paths["test"]:
        splits["test"] = in_class_folders(tree, paths["test"], index, by_path)
    return Layout(tuple(ClassInfo(label, names.get(label) or label) for label in labels), splits)


def _without(tree: Tree, paths: list[str], empty: set[str]) -> list[str]:
    """The paths whose class is not left out; the others are counted."""
    left_out = [path for path in paths if (parts := path.split("/"))[2:] and nfc(parts[1]) in empty]
    for path in left_out:
        tree.ignored.add("images of classes without a training image", path)
    if left_out:
        say(f"{tree.name}: left out with them: {len(left_out)} images, such as {left_out[0]}")
    return sorted(set(paths) - set(left_out))


def _classes(tree: Tree, paths: list[str], skip_empty: bool) -> tuple[list[str], set[str]]:
    """The labels in order, and those left out because no image lies below their folder."""
    train = tree.folders["train"]
    folder_of: dict[str, str] = {}
    for folder in tree.inside(train):
        other = folder_of.setdefault(nfc(folder), folder)
        if other != folder:  # the same letters on the screen, other bytes on the disk
            raise DataError(
                f"{tree.name}: {train}/ has two folders that look the same, {ascii(other)} and {ascii(folder)}, "
                "expected one for each class; give one of them another name or put their images together"
            )
    filled = {_label(tree, path) for path in paths}
    empty = sorted(folder_of.keys() - filled)
    if empty:
        which = ", ".join(f"{train}/{folder_of[label]}" for label in empty[:5]) + (", ..." if len(empty) > 5 else "")
        found = f"{tree.name}: found no image in {len(empty)} of the {len(folder_of)} class folders ({which})"
        if not skip_empty:
            raise DataError(f"{found}, expected some in each; fill or move them, or leave them out with --on-bad skip")
        say(f"{found}: left out")
        for label in empty:
            tree.ignored.add("class folders without an image", f"{train}/{folder_of[label]}")
    if len(filled) == 1:
        (label,) = filled
        inside = tree.inside(f"{train}/{folder_of[label]}")
        shown = f", with the folders {', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''} inside it"
        raise DataError(
            f"{tree.name}: found one class only ({train}/{label}{shown if inside else ''}), expected at least two "
            f"folders in {train}/; if the classes lie deeper, move their folders up into {train}/, those of val/ too"
        )
    return sorted(filled), set(empty)


def _label(tree: Tree, path: str) -> str:
    parts = path.split("/")
    if len(parts) < 3:
        raise _unlike(tree, f"found {path}, which lies in no class folder")
    return nfc(parts[1])


def _unlike(tree: Tree, found: str, more: str = "") -> DataError:
    return DataError(
        f"{tree.name}: {found}, expected train/<label>/ and val/<label>/ with the same labels and images in each (or, "
        f"but wnids.txt not found, the layout of Tiny ImageNet); sort the images into such folders{more}"
    )
