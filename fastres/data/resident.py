"""The default engine: every image of a split lives on the device as uint8 (1.23 GB for Tiny ImageNet's training set).

An epoch is then an index permutation; nothing but ids crosses the bus, and the views kernel reads pixels in place.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastres.data.manifest import Manifest
from fastres.errors import DataError


class Batch(NamedTuple):
    """What every engine delivers.

    images  u8 [M, S, S, 3]  source pixels on the device: the whole split (resident), or just this batch (streaming)
    rows    i64 [B]          which of the M images each sample is
    labels  i64 [B]          class indices; -1 where the split is unlabelled
    ids     i64 [B]          sample ids: row numbers of the split
    """

    images: torch.Tensor
    rows: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor


class Resident:
    """One split on one device, verified against the manifest's digests while it is read."""

    def __init__(self, packed: Path, manifest: Manifest, split: str, device: torch.device) -> None:
        """DataError if the split is not in the manifest or a file is not what was packed."""
        if split not in manifest.splits:
            raise DataError(f"{packed}: has no {split} split, only {', '.join(manifest.splits)}; pack again")
        self.count = manifest.count(split)
        images = _verified_array(packed, manifest, f"{split}.images.npy")
        expected = (self.count, manifest.side, manifest.side, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise DataError(
                f"{packed}/{split}.images.npy: {images.dtype} {images.shape}, expected uint8 {expected}; pack again"
            )
        if f"{split}.labels.npy" in manifest.files:
            labels = _verified_array(packed, manifest, f"{split}.labels.npy").astype(np.int64, copy=False)
            if labels.shape != (self.count,) or labels.min() < 0 or labels.max() >= manifest.num_classes:
                raise DataError(
                    f"{packed / f'{split}.labels.npy'}: {labels.shape} labels {labels.min()} to {labels.max()}, "
                    f"expected {self.count} labels below {manifest.num_classes}; pack again"
                )
        else:
            labels = np.full(self.count, -1, np.int64)
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.device = device

    def __len__(self) -> int:
        return self.count

    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """The samples `ids` (i64 [n]) in that order; the last batch is as small as it falls, nothing is padded."""
        on_device = torch.from_numpy(np.ascontiguousarray(ids, np.int64)).to(self.device)
        for start in range(0, len(ids), batch_size):
            rows = on_device[start : start + batch_size]
            yield Batch(self.images, rows, self.labels[rows], rows)


def _verified_array(packed: Path, manifest: Manifest, name: str) -> np.ndarray:
    """Read a .npy once, hashing what was read: the bytes that are checked are the bytes that train."""
    path, expected = packed / name, manifest.files[name]
    try:
        content = bytearray(path.stat().st_size)  # writable, so that the array over it needs no second copy
        with path.open("rb") as file:
            file.readinto(content)
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror}); run preprocess/pack.py again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected["sha256"]:
        raise DataError(
            f"{path}: {len(content)} bytes with sha256 {found[:12]}..., expected {expected['bytes']} bytes with "
            f"{expected['sha256'][:12]}...; run preprocess/pack.py again"
        )
    header = io.BytesIO(content[:4096])
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    return np.frombuffer(content, dtype, offset=header.tell()).reshape(shape)
