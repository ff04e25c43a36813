"""A process's slices of the global batches: which of a batch's images are whose."""

from collections.abc import Iterator

import numpy as np
import torch

from fastres.data.batch import Batch, Split


def slices(data: Split, ids: np.ndarray, batch_size: int, rank: int, size: int, together: int = 1) -> Iterator[Batch]:
    """Process `rank` of `size`'s slice of each global batch that `ids` (i64 [n]) fall into, one for each batch.

    One process has every batch whole. Slices of one batch may differ by `together` images, which are not parted, and of
    the last one may be empty.
    """
    if size == 1:
        yield from data.batches(ids, batch_size)
        return
    wholes = [min(batch_size, len(ids) - start) for start in range(0, len(ids), batch_size)]
    if not wholes:
        return
    bounds = [slice_of(whole, rank, size, together) for whole in wholes]
    mine = [ids[k * batch_size + a : k * batch_size + b] for k, (a, b) in enumerate(bounds)]
    # every whole batch gives a slice of this size, and the last one's is no larger: the engine's own way of cutting
    first, end = slice_of(batch_size, rank, size, together)
    for batch, whole in zip(data.batches(np.concatenate(mine), end - first), wholes):
        yield batch._replace(whole=whole)
    if len(mine[-1]) == 0:
        none = data.labels[:0]
        images = torch.empty(0, 1, 1, 3, dtype=torch.uint8, device=data.device)
        yield Batch(images=images, rows=none, labels=none, ids=none, whole=wholes[-1])


def slice_of(whole: int, rank: int, size: int, together: int = 1) -> tuple[int, int]:
    """First and end of a process's positions in a batch of `whole`, cut between every `together` of them: the first
    processes have one of these more, if any."""
    base, extra = divmod(-(-whole // together), size)
    first = rank * base + min(rank, extra)
    end = first + base + (rank < extra)
    return min(first * together, whole), min(end * together, whole)
