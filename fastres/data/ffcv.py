"""The ffcv engine: <split>.beton through FFCV's reader and compiled decoder, in our order.

FFCV reads in a thread of its own, in which an exception leaves the consumer waiting for ever and which an early
stop leaves behind. So an epoch of FFCV is driven from the engine's own thread (ahead.py) here. Only the image field
goes through the compiled pipeline; labels and ids are checked against the index when the file is opened.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fastres.data.ffcv_import import load_ffcv
from fastres.data.ffcv_memory import decoder, loader_class
from fastres.data.labels import read_labels
from fastres.data.libraries import require
from fastres.data.manifest import REMEDY, Manifest
from fastres.data.stream import Stream
from fastres.data.trust import Watched
from fastres.machine.errors import DataError


def open_ffcv(packed: Path, manifest: Manifest, split: str, device: torch.device) -> Stream:
    """DataError if the file is not what was packed, MachineError without FFCV."""
    require("ffcv")
    name = f"{split}.beton"
    file = Watched(packed, manifest, name)  # before FFCV touches it: it does not return from a damaged file
    labels = read_labels(packed, manifest, split)
    try:
        reader = FfcvReader(file, labels)
    except Exception as error:
        raise file.fault(error, FfcvReader.name) from error
    file.unchanged()
    return Stream(reader, packed, manifest, split, device)


class FfcvReader:
    """A verified .beton file. Compiles once, at the first epoch: 1 to 3 s."""

    name = "ffcv"

    def __init__(self, file: Watched, labels: np.ndarray) -> None:
        """labels: i64 [N], what the file must hold."""
        self.file, self._short = file, np.zeros(1, np.int64)
        threads = torch.get_num_threads()  # a Loader sets it for the whole process
        self._lock = threading.Lock()
        self.order = _order()
        self.loader = loader_class(file.open(), self._short)(
            str(file.path),
            batch_size=1,
            num_workers=1,  # copies of raw pixels: one thread passes 100k img/s, and Numba's others abort when shared
            order=self.order,
            pipelines={"image": [decoder()], "label": None, "id": None},
            drop_last=False,
            batches_ahead=0,
        )
        torch.set_num_threads(threads)
        metadata = self.loader.reader.metadata
        if not np.array_equal(metadata["f1"], labels) or not np.array_equal(metadata["f2"], np.arange(len(labels))):
            raise DataError(f"{file.path}: its labels or ids are not those of the index; {REMEDY}")

    def read(self, ids: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """See stream.Reader."""
        with self._lock:  # an epoch takes order and batch size from the loader when it begins
            self.order.ids = ids.astype(np.uint64)
            self.loader.batch_size = min(batch_size, len(ids))
            epoch = _epoch(self.loader)
        for images in epoch:
            if self._short[0]:
                raise DataError(f"{self.file.path}: a part of it could not be read; check the disk, and {REMEDY}")
            yield images


def _order():
    """A traversal order that is whatever `ids` (u64 [n]) says; FFCV calls it to bind it to a loader."""

    class Ours(load_ffcv("ffcv.traversal_order.base").TraversalOrder):
        ids = np.zeros(1, np.uint64)

        def __init__(self) -> None:
            """Nothing yet: bound when called."""

        def __call__(self, loader) -> "Ours":
            super().__init__(loader)
            return self

        def sample_order(self, epoch: int) -> np.ndarray:
            return self.ids

    return Ours()


def _epoch(loader) -> Iterator[np.ndarray]:
    """One pass in the loader's order, in the calling thread: u8 [b, S, S, 3], each valid until the next."""

    class Epoch(load_ffcv("ffcv.loader.epoch_iterator").EpochIterator):
        def start(self) -> None:
            """FFCV would start its thread here."""

        def __iter__(self) -> Iterator[np.ndarray]:
            slots = self.loader.batches_ahead + 2
            for number, ids in enumerate(self.iter_ixes):
                (images,) = self.run_pipeline(number, ids, number % slots, None)
                yield images

    return iter(Epoch(loader, loader.next_traversal_order()))
