"""The contract of every engine: a Split delivers Batches."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch


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


def check_ids(ids: np.ndarray | torch.Tensor, count: int) -> None:
    """IndexError unless all are row numbers of a split of `count`; on a GPU this waits."""
    if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < count):
        raise IndexError(f"ids {int(ids.min())} to {int(ids.max())}, expected 0 to {count - 1}")


class Split(Protocol):
    """One split, delivered by an engine.

    labels   i64 [N] on the device; -1 where the split is unlabelled
    batches  the samples `ids` (i64 [n]) in that order, every one once; the last batch is as small as it falls
    pixels   images of a few ids (i64 [n] tensor), u8 [n, S, S, 3] on the device
    """

    labels: torch.Tensor
    device: torch.device

    def __len__(self) -> int: ...
    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]: ...
    def pixels(self, ids: torch.Tensor) -> torch.Tensor: ...
