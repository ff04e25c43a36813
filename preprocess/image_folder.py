"""Any image folder: train/<label>/... and val/<label>/..., the layout of torchvision's ImageFolder.

Classes are the folders of train, sorted by name, which is also the name that is shown (words.txt may give another).
Images lie below their class folder at any depth; test/ is unlabelled and may be absent.
Order of sample ids: train by class, then file name; val and test by path, numbers as numbers.
"""

import re

from fastres.data.manifest import ClassInfo
from fastres.errors import DataError
from preprocess.tiny_imagenet import UNLABELLED, Layout, Record, class_names, images
from preprocess.tree import Tree


def read_layout(tree: Tree) -> Layout:
    """Classes, order and labels of everything in the tree. DataError for whatever is not as described above."""
    paths = {split: images(tree, split) for split in ("train", "val", "test")}
    names = class_names(tree)
    labels = sorted({_label(tree, path) for path in paths["train"]})
    if not labels:
        raise _unlike(tree, "found no image in train/")
    if not paths["val"]:
        raise _unlike(tree, "found no image in val/")
    index = {label: i for i, label in enumerate(labels)}
    for path in paths["val"]:
        if _label(tree, path) not in index:
            raise _unlike(tree, f"found {path}, whose folder is no class of train/ ({len(labels)} classes)")
    splits = {
        split: sorted((Record(path, index[_label(tree, path)]) for path in paths[split]), key=key)
        for split, key in (("train", lambda r: (r.label, *_by_path(r))), ("val", _by_path))
    }
    if paths["test"]:
        splits["test"] = sorted((Record(path, UNLABELLED) for path in paths["test"]), key=_by_path)
    return Layout(tuple(ClassInfo(label, names.get(label) or label) for label in labels), splits)


def _by_path(record: Record) -> tuple:
    """Sort key: the whole path with its numbers as numbers, then as it is."""
    parts = re.split(r"(\d+)", record.path)
    return tuple(int(p) if i % 2 else p for i, p in enumerate(parts)), record.path


def _label(tree: Tree, path: str) -> str:
    parts = path.split("/")
    if len(parts) < 3:
        raise _unlike(tree, f"found {path}, which lies in no class folder")
    return parts[1]


def _unlike(tree: Tree, found: str) -> DataError:
    return DataError(
        f"{tree.name}: {found}, and wnids.txt not found, expected the layout of Tiny ImageNet or train/<label>/ and "
        "val/<label>/ with the same labels; sort the images into such folders, or take the whole data set"
    )
