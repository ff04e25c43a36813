"""The engines by name, one contract behind all: len(), labels, device, batches(ids, batch_size), pixels(ids)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fastres.data.dali import open_dali
from fastres.data.ffcv import open_ffcv
from fastres.data.manifest import Manifest
from fastres.data.resident import Batch, Resident
from fastres.errors import DataError


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


Opener = Callable[[Path, Manifest, str, torch.device], Split]
ENGINES: dict[str, Opener] = {"resident": Resident, "ffcv": open_ffcv, "dali": open_dali}
PIXEL_FILES = {"resident": "images.npy", "ffcv": "beton", "dali": "tar"}  # <split>.<this>


def open_split(engine: str, packed: Path, manifest: Manifest, split: str, device: torch.device) -> Split:
    """DataError if the packed files are not what was packed, MachineError if the engine's library is missing."""
    if split in manifest.splits and f"{split}.{PIXEL_FILES[engine]}" not in manifest.files:
        raise DataError(
            f"{packed}: packed for {', '.join(packed_for(manifest, split)) or 'no engine'}, not for {engine}; run "
            f"`python preprocess/pack.py --engines {engine}` for this folder, or use another --engine"
        )
    return ENGINES[engine](packed, manifest, split, device)


def packed_for(manifest: Manifest, split: str) -> list[str]:
    """The engines that have this split's pixels here."""
    return [engine for engine, ending in PIXEL_FILES.items() if f"{split}.{ending}" in manifest.files]
