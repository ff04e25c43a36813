"""The labels and the file names of a split, verified: small enough to hash at every start."""

import hashlib
import io
from pathlib import Path

import numpy as np

from fastres.data.manifest import REMEDY, Manifest, verify_file, verify_size
from fastres.machine.errors import DataError, first_line


def read_labels(packed: Path, manifest: Manifest, split: str) -> np.ndarray:
    """i64 [N] class indices; -1 throughout where the split is unlabelled. DataError if they are not what was packed."""
    if split not in manifest.splits:
        raise DataError(f"{packed}: has no {split} split, only {', '.join(manifest.splits)}; {REMEDY}")
    count, name = manifest.count(split), f"{split}.labels.npy"
    if name not in manifest.files:
        return np.full(count, -1, np.int64)
    labels = verified_array(packed, manifest, name)
    if labels.shape != (count,) or labels.dtype != np.int64 or labels.min() < 0 or labels.max() >= manifest.num_classes:
        known = labels.dtype == np.int64 and labels.size
        found = f"{labels.dtype} {labels.shape}" + (f" from {labels.min()} to {labels.max()}" if known else "")
        raise DataError(
            f"{packed / name}: found labels {found}, expected int64 ({count},) from 0 below {manifest.num_classes}; "
            f"{REMEDY}"
        )
    told = manifest.splits[split].get("per_class")
    found = np.bincount(labels, minlength=manifest.num_classes).tolist()
    if told is not None and told != found:
        wrong = next(index for index, number in enumerate(found) if told[index] != number)
        raise DataError(
            f"{packed / name}: found {found[wrong]} images of class {manifest.classes[wrong].wnid}, expected the "
            f"manifest's {told[wrong]}; {REMEDY}"
        )
    if not manifest.splits[split].get("labelled", True):
        raise DataError(f"{packed / name}: found labels, expected none of a split that is not labelled; {REMEDY}")
    return labels


def read_names(packed: Path, manifest: Manifest, split: str) -> list[str]:
    """The split's file names in order, relative to its data set; DataError if the list is not what was packed."""
    verify_file(packed, manifest, f"{split}.files.txt")
    names = (packed / f"{split}.files.txt").read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    if len(names) != manifest.count(split):
        raise DataError(
            f"{packed / split}.files.txt: has {len(names)} lines, expected {manifest.count(split)}; {REMEDY}"
        )
    return names


def verified_array(packed: Path, manifest: Manifest, name: str) -> np.ndarray:
    """Read a .npy once, hashing what was read: the bytes that are checked are the bytes that train."""
    path, expected = verify_size(packed, manifest, name), manifest.files[name]
    try:
        content = bytearray(expected["bytes"])  # writable, so that the array over it needs no second copy
        with path.open("rb") as file:
            file.readinto(content)
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror}); {REMEDY}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected["sha256"]:
        raise DataError(
            f"{path}: {len(content)} bytes with sha256 {found[:12]}..., expected {expected['bytes']} bytes with "
            f"{expected['sha256'][:12]}...; {REMEDY}"
        )
    try:
        header = io.BytesIO(content[:4096])
        np.lib.format.read_magic(header)
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(header)
        if by_columns or dtype.hasobject:
            raise ValueError("its axes are in Fortran's order" if by_columns else "it holds Python objects")
        return np.frombuffer(content, dtype, offset=header.tell()).reshape(shape)
    except MemoryError:
        raise
    except Exception as error:  # numpy evaluates the header's text and raises nearly anything on a damaged one
        reason = first_line(error)
        raise DataError(f"{path}: no array as the packer writes it ({reason}); {REMEDY}") from None
