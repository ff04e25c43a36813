"""What the streaming engines share: labels, order, prefetch, the way to the device. ffcv.py and dali.py read pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fastres.data.ahead import Ahead
from fastres.data.batch import Batch, check_ids
from fastres.data.labels import read_labels
from fastres.data.manifest import REMEDY, Manifest
from fastres.data.trust import Watched
from fastres.machine.errors import DataError

PREFETCH = 3  # batches waiting on the host while one trains


class Reader(Protocol):
    """One packed file, already verified, read by one library, and never through a memory map: to touch a page of a file
    that was cut under it ends a process with SIGBUS.
    """

    name: str
    file: Watched

    def read(self, ids: np.ndarray, batch_size: int) -> Iterator[np.ndarray | torch.Tensor]:
        """The images `ids` in that order, u8 [b, S, S, 3], b = batch_size but for the last.

        An array is valid until the next is asked for; a tensor is a copy, on the device already. Runs in a thread;
        closing the iterator frees what it holds. What it raises goes through `file.fault`.
        """
        ...


class Stream:
    """One split that is read from disk batch by batch: the contract of Resident without `images`."""

    def __init__(self, reader: Reader, packed: Path, manifest: Manifest, split: str, device: torch.device) -> None:
        self.reader, self.device, self.side = reader, device, manifest.side
        labels = read_labels(packed, manifest, split)
        self.labels = torch.from_numpy(labels).to(device)
        self._labels = labels
        self._pinned = device.type == "cuda"

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """The samples `ids` (i64 [n]) in that order; the last batch is as small as it falls, nothing is padded."""
        ids = np.ascontiguousarray(ids, np.int64)
        if len(ids) == 0:
            return
        check_ids(ids, len(self))
        self.reader.file.check()
        delivered = 0
        produce, name = (lambda: self._host_batches(ids, batch_size)), f"the {self.reader.name} engine"
        with Ahead(produce, name=name, depth=PREFETCH) as ahead:
            for images, part in ahead:
                delivered += len(part)
                on_device = part.to(self.device, non_blocking=True)
                yield Batch(
                    images=images.to(self.device, non_blocking=True),
                    rows=torch.arange(len(part), device=self.device),
                    labels=self.labels[on_device],
                    ids=on_device,
                )
        if delivered != len(ids):
            raise DataError(f"the {self.reader.name} engine delivered {delivered} images, expected {len(ids)}")

    def pixels(self, ids: torch.Tensor) -> torch.Tensor:
        """Images of a few ids, u8 [n, S, S, 3] on the device; for pictures."""
        wanted = ids.cpu().numpy()
        return torch.cat([batch.images for batch in self.batches(wanted, max(1, len(wanted)))])

    def _host_batches(self, ids: np.ndarray, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(images u8 [b, S, S, 3], ids i64 [b]) on the host, pinned where they go to a GPU.

        Copied out of the library's buffers, which it fills again. PyTorch keeps a pinned buffer until the copy from
        it is done, so it may be let go of at once.
        """
        if self._pinned:  # pinning in a new thread would otherwise open a context on the first GPU
            torch.cuda.set_device(self.device)
        first = 0
        chunks = self.reader.read(ids, batch_size)
        try:
            for chunk in self._checked(chunks):
                part = ids[first : first + batch_size]
                if tuple(chunk.shape) != (len(part), self.side, self.side, 3):
                    raise DataError(
                        f"the {self.reader.name} engine delivered {tuple(chunk.shape)}, expected "
                        f"{(len(part), self.side, self.side, 3)}; {REMEDY}"
                    )
                images = chunk if isinstance(chunk, torch.Tensor) else self._copy(chunk)
                positions = torch.from_numpy(part)
                yield images, positions.pin_memory() if self._pinned else positions
                first += len(part)
        finally:
            chunks.close()

    def _checked(self, chunks: Iterator) -> Iterator:
        """Each after a look at the file: no batch is delivered of which a part was read from a changed one."""
        while True:
            try:
                chunk = next(chunks, None)
            except Exception as error:
                raise self.reader.file.fault(error, self.reader.name) from error
            if chunk is None:
                return
            self.reader.file.unchanged()
            yield chunk

    def _copy(self, images: np.ndarray) -> torch.Tensor:
        copy = torch.empty(images.shape, dtype=torch.uint8, pin_memory=self._pinned)
        copy.numpy()[:] = images
        return copy
