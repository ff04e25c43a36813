"""The labels of a split, verified: small enough to hash at every start."""

import hashlib
import io
from pathlib import Path

import numpy as np

from fastres.data.manifest import REMEDY, Manifest
from fastres.errors import DataError


def read_labels(packed: Path, manifest: Manifest, split: str) -> np.ndarray:
    """i64 [N] class indices; -1 throughout where the split is unlabelled. DataError if they are not what was packed."""
    if split not in manifest.splits:
        raise DataError(f"{packed}: has no {split} split, only {', '.join(manifest.splits)}; {REMEDY}")
    count, name = manifest.count(split), f"{split}.labels.npy"
    if name not in manifest.files:
        return np.full(count, -1, np.int64)
    labels = verified_array(packed, manifest, name).astype(np.int64, copy=False)
    if labels.shape != (count,) or labels.min() < 0 or labels.max() >= manifest.num_classes:
        raise DataError(
            f"{packed / name}: {labels.shape} labels {labels.min()} to {labels.max()}, "
            f"expected {count} labels below {manifest.num_classes}; {REMEDY}"
        )
    return labels


def verified_array(packed: Path, manifest: Manifest, name: str) -> np.ndarray:
    """Read a .npy once, hashing what was read: the bytes that are checked are the bytes that train."""
    path = packed / name
    if name not in manifest.files:
        raise DataError(f"{path}: not in the manifest, which lists {', '.join(sorted(manifest.files))}; {REMEDY}")
    expected = manifest.files[name]
    try:
        content = bytearray(path.stat().st_size)  # writable, so that the array over it needs no second copy
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
    header = io.BytesIO(content[:4096])
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    return np.frombuffer(content, dtype, offset=header.tell()).reshape(shape)
