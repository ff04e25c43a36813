"""The layout of Tiny ImageNet: from a tree of files to classes and, for each split, images with labels.

wnids.txt      one WordNet id a line; its order does not matter, classes are sorted by id
words.txt      id, tab, names; the first name is kept (optional)
train/<id>/    images below it, at any depth (the original has images/)
val/           either all in one folder, labelled by val_annotations.txt (tab-separated: file, id, box),
               or sorted into folders named by id, as many tools leave it
test/          may be absent; unlabelled, or sorted into folders named by id

An image is never labelled by a guess: one that no class folder and no annotation names is an error.
"""

import codecs
import re

from fastres.data.manifest import ClassInfo
from fastres.machine.errors import DataError
from preprocess.sources.listing import ANNOTATIONS, images, nfc
from preprocess.sources.records import HOLD_BACK, UNLABELLED, Layout, Record, in_class_folders, natural
from preprocess.sources.tree import Tree


def read_layout(tree: Tree, without_val: bool = False) -> Layout:
    """Classes, order and labels of everything in the tree. DataError for whatever is not as described above.

    without_val: whether there may be no validation image.
    """
    classes = read_classes(tree)
    label_of = {c.wnid: i for i, c in enumerate(classes)}
    splits = {"train": train_records(tree, label_of), "val": val_records(tree, label_of, without_val)}
    if len(classes) == 1:
        raise DataError(
            f"{tree.name}: wnids.txt lists one class only ({classes[0].wnid}), expected at least two; "
            "take the whole data set"
        )
    if test := images(tree, "test"):
        splits["test"] = in_class_folders(tree, test, label_of, by_file_name)
    return Layout(classes, splits)


def by_file_name(record: Record) -> tuple:
    """Sort key: the file's name, see `natural`, then its path."""
    return natural(record.path.rsplit("/", 1)[-1])[0], record.path


def lines_of(tree: Tree, path: str) -> list[str]:
    """A text file's lines without their ends: CRLF and CR, UTF-16 by its byte-order mark, and Latin-1 are accepted."""
    data = tree.read(path)
    try:
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return re.split(r"\r\n|\r|\n", text)


def read_classes(tree: Tree) -> tuple[ClassInfo, ...]:
    """Classes sorted by id, named from words.txt where it names them, else by their id."""
    if not tree.has("wnids.txt"):
        raise DataError(f"{tree.name}: wnids.txt not found, expected one class id a line; take the whole data set")
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines_of(tree, "wnids.txt"), start=1):
        wnid = nfc(line.partition("\t")[0].strip())  # names may stand behind it
        if not wnid:
            continue
        if wnid in line_of:
            raise DataError(
                f"{tree.name}: wnids.txt line {number} repeats {wnid} of line {line_of[wnid]}, "
                "expected each class once; keep one of them"
            )
        line_of[wnid] = number
    if not line_of:
        raise DataError(f"{tree.name}: wnids.txt is empty, expected one class id a line; take the whole data set")
    names = class_names(tree)
    return tuple(ClassInfo(wnid, names.get(wnid) or wnid) for wnid in sorted(line_of))


def class_names(tree: Tree) -> dict[str, str]:
    """The first name that words.txt has for a class id; nothing where there is no words.txt."""
    words = lines_of(tree, "words.txt") if tree.has("words.txt") else []
    return {nfc(wnid): text.split(",")[0].strip() for wnid, _, text in (line.partition("\t") for line in words)}


def train_records(tree: Tree, label_of: dict[str, int]) -> list[Record]:
    """Train images by class index, then by file name."""
    records = []
    for path in images(tree, "train"):
        folders = nfc(path).split("/")[1:-1]
        if not folders or folders[0] not in label_of:
            raise DataError(
                f"{tree.name}: {path} lies in no folder of a class that wnids.txt lists, expected "
                "train/<class id>/images/; add the class to wnids.txt or move the image away"
            )
        records.append(Record(path, label_of[folders[0]]))
    empty = sorted(set(label_of.values()) - {r.label for r in records})
    if empty:
        wnids = list(label_of)
        raise DataError(
            f"{tree.name}: no train image of {len(empty)} of the {len(wnids)} classes, the first being "
            f"{wnids[empty[0]]}, expected some of each in train/<class id>/; the data set is incomplete, get it anew"
        )
    return sorted(records, key=lambda r: (r.label, *by_file_name(r)))


def val_records(tree: Tree, label_of: dict[str, int], without_val: bool = False) -> list[Record]:
    """Val images by file name, each labelled by the class folder it lies in or by its annotation line."""
    paths = images(tree, "val")
    if not paths and without_val:
        return []
    if not paths:
        raise DataError(
            f"{tree.name}: no image in val/, expected the validation images; get the data set anew{HOLD_BACK}"
        )
    listed = f"{tree.folders['val']}/{ANNOTATIONS}"
    in_folder = {path: next((f for f in nfc(path).split("/")[1:-1] if f in label_of), None) for path in paths}
    flat = [path for path in paths if in_folder[path] is None]
    if flat and not tree.has(listed):
        raise DataError(
            f"{tree.name}: {flat[0]} lies in no class folder and {listed} is not there to label it, "
            "expected one of the two; get the data set anew"
        )
    annotated = read_annotations(tree, listed, label_of) if tree.has(listed) else {}
    known = {nfc(path).rsplit("/", 1)[-1] for path in paths}
    for name, (_, number) in annotated.items():
        if name not in known:
            raise DataError(
                f"{tree.name}: {listed} line {number} names {name}, which is not in val/, expected an image "
                "for every line; the data set is incomplete, get it anew"
            )
    records, path_of = [], {}
    for path in paths:
        name = nfc(path).rsplit("/", 1)[-1]
        wnid, number = annotated.get(name, (None, 0))
        if wnid and name in path_of:  # images copied into class folders, not moved: they would count twice
            raise DataError(
                f"{tree.name}: found {name} at {path_of[name]} and at {path}, expected one image for "
                f"{listed} line {number}; move one of them away"
            )
        path_of[name] = path
        folder = in_folder[path]
        if folder and wnid and folder != wnid:
            raise DataError(
                f"{tree.name}: {listed} line {number} says {wnid}, but the image lies at {path}, "
                "expected the two to agree; get the data set anew"
            )
        if folder or wnid:
            records.append(Record(path, label_of[folder or wnid]))
        else:
            raise _not_annotated(tree, listed, path, annotated)
    return sorted(records, key=by_file_name)


def read_annotations(tree: Tree, listed: str, label_of: dict[str, int]) -> dict[str, tuple[str, int]]:
    """val_annotations.txt as file name -> (class id, line number)."""
    annotated: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(lines_of(tree, listed), start=1):
        if not line.strip():
            continue
        where = f"{tree.name}: {listed} line {number}"
        name, _, rest = line.partition("\t")
        name, wnid = nfc(name), nfc(rest.split("\t")[0].strip())
        if not name or not wnid:
            raise DataError(
                f"{where} reads {line[:80]!r}, expected file, tab, class id; mend the line or get the data set anew"
            )
        if wnid not in label_of:
            raise DataError(f"{where} names class {wnid}, expected one of wnids.txt; mend the line or wnids.txt")
        if name in annotated:
            raise DataError(
                f"{where} labels {name} again after line {annotated[name][1]}, expected one line an image; "
                "keep the right one"
            )
        annotated[name] = (wnid, number)
    return annotated


def _not_annotated(tree: Tree, listed: str, path: str, annotated: dict[str, tuple[str, int]]) -> DataError:
    """The fault of a missing line, with the place where it should be: after the image that sorts before it."""
    here = by_file_name(Record(path.rsplit("/", 1)[-1], UNLABELLED))
    before = [n for name, (_, n) in annotated.items() if by_file_name(Record(name, UNLABELLED)) < here]
    return DataError(
        f"{tree.name}: {listed} has no line for {path}, expected it at line {max(before, default=0) + 1}; "
        "add the line or get the data set anew"
    )
