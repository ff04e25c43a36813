"""Files to pixels, as the packer makes them, in processes ahead of the network."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastres.data.batch import Batch
from fastres.data.decode import Recipe
from fastres.data.decode_pool import cores, decode_here, decode_in_workers
from fastres.machine.files import read_regular

WORTH_A_WORKER = 20_000_000  # bytes of JPEG: an interpreter starts in the second that it takes to decode so many


class Files:
    """Reads a file by its path."""

    def read(self, locator: Path) -> bytes:
        return read_regular(locator)


class Decoded(NamedTuple):
    """Some of the files, in order: why each is bad, or None; and the pixels u8 [n, S, S, 3] of the n good ones."""

    paths: Sequence[Path]
    faults: list[str | None]
    pixels: np.ndarray


def decoded(paths: Sequence[Path], recipe: Recipe, size: int) -> Iterator[Decoded]:
    """All files, `size` at a time. Of more than that many, processes decode the next ones while these are used."""
    parts = [paths[at : at + size] for at in range(0, len(paths), size)]
    job = (Files(), parts, recipe)
    found = decode_here(*job) if len(parts) == 1 else decode_in_workers(*job, _workers(paths, len(parts)))
    with contextlib.closing(found):
        for part, (results, pixels) in zip(parts, found, strict=True):
            faults = [result if isinstance(result, str) else None for result in results]
            yield Decoded(part, faults, pixels[[fault is None for fault in faults]])


def _workers(paths: Sequence[Path], parts: int) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += os.path.getsize(path)
    return min(cores(), parts, 1 + total // WORTH_A_WORKER)


class Images:
    """Decoded images as a split: u8 [N, S, S, 3] on the device, unlabelled."""

    def __init__(self, pixels: np.ndarray, device: torch.device) -> None:
        self.images, self.device = torch.from_numpy(pixels).to(device), device
        self.labels = torch.full((len(pixels),), -1, device=device)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        on_device = torch.from_numpy(np.ascontiguousarray(ids, np.int64)).to(self.device)
        for rows in on_device.split(batch_size):
            yield Batch(self.images, rows, self.labels[rows], rows)

    def pixels(self, ids: torch.Tensor) -> torch.Tensor:
        return self.images[ids]
