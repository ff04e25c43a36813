"""The default engine: every image of a split lives on the device as uint8 (1.23 GB for Tiny ImageNet's training set).

An epoch is then an index permutation; nothing but ids crosses the bus, and the views kernel reads pixels in place.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastres.data.labels import read_labels, verified_array
from fastres.data.manifest import REMEDY, Manifest
from fastres.errors import DataError


class Batch(NamedTuple):
    """What every engine delivers.

    images  u8 [M, S, S, 3]  source pixels on the device: the whole split (resident), or just this batch (streaming)
    rows    i64 [B]          which of the M images each sample is
    labels  i64 [B]          class indices; -1 where the split is unlabelled
    ids     i64 [B]          sample ids: row numbers of the split
    whole   images of the optimiser step that this is one process's slice of; 0: this is all of it
    """

    images: torch.Tensor
    rows: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    whole: int = 0

    @property
    def step_images(self) -> int:
        """Images of the optimiser step, over all processes."""
        return self.whole or len(self.ids)


class Resident:
    """One split on one device, verified against the manifest's digests while it is read."""

    def __init__(self, packed: Path, manifest: Manifest, split: str, device: torch.device) -> None:
        """DataError if the split is not in the manifest or a file is not what was packed."""
        labels = read_labels(packed, manifest, split)
        images = verified_array(packed, manifest, f"{split}.images.npy")
        expected = (len(labels), manifest.side, manifest.side, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise DataError(
                f"{packed}/{split}.images.npy: {images.dtype} {images.shape}, expected uint8 {expected}; {REMEDY}"
            )
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """The samples `ids` (i64 [n]) in that order; the last batch is as small as it falls, nothing is padded."""
        on_device = torch.from_numpy(np.ascontiguousarray(ids, np.int64)).to(self.device)
        for start in range(0, len(ids), batch_size):
            rows = on_device[start : start + batch_size]
            yield Batch(self.images, rows, self.labels[rows], rows)

    def pixels(self, ids: torch.Tensor) -> torch.Tensor:
        """Images of a few ids, u8 [n, S, S, 3] on the device; for pictures."""
        return self.images[ids]
