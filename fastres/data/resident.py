"""The default engine: every image of a split lives on the device as uint8 (1.23 GB for Tiny ImageNet's training set).

An epoch is then an index permutation; nothing but ids crosses the bus, and the views kernel reads pixels in place.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fastres.data.batch import Batch, check_ids
from fastres.data.labels import read_labels, verified_array
from fastres.data.manifest import REMEDY, Manifest
from fastres.data.trust import Watched
from fastres.machine.errors import DataError


class Resident:
    """One split on one device, verified against the manifest's digests while it is read."""

    def __init__(self, packed: Path, manifest: Manifest, split: str, device: torch.device) -> None:
        """DataError if the split is not in the manifest or a file is not what was packed."""
        names = [name for name in (f"{split}.images.npy", f"{split}.labels.npy") if name in manifest.files]
        self._watched = [Watched(packed, manifest, name, read=True) for name in names]
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
        """The samples `ids` (i64 [n]) in that order; the last batch is as small as it falls, nothing is padded.

        DataError where the packed files are others now: a run's summary names them, and it could not be resumed.
        """
        check_ids(ids, len(self))
        for watched in self._watched:
            watched.check()
        order = torch.from_numpy(np.ascontiguousarray(ids, np.int64))
        # from pinned memory nobody waits for the upload; PyTorch keeps the buffer until it is done
        on_device = order.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else order
        for start in range(0, len(ids), batch_size):
            rows = on_device[start : start + batch_size]
            yield Batch(self.images, rows, self.labels[rows], rows)

    def pixels(self, ids: torch.Tensor) -> torch.Tensor:
        """Images of a few ids, u8 [n, S, S, 3] on the device; for pictures."""
        check_ids(ids, len(self))
        return self.images[ids]
