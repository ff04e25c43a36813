"""The dali engine: the original JPEGs of <split>.tar, decoded by DALI in our order.

DALI's own readers shuffle by their own rules and pad; here an external source hands it pieces of the tar, found
through <split>.idx, for exactly the ids asked for. On the CPU (device_id=None) the pixels are Pillow's,
bit for bit. On a GPU the decoder is "mixed" (nvJPEG), which may differ by a few levels: no record shows yet by how
many, nor that this path runs.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fastres.data.libraries import require
from fastres.data.manifest import REMEDY, Manifest
from fastres.data.stream import Stream
from fastres.data.trust import Watched, verify_once
from fastres.machine.errors import DataError

IMAGE_ENDINGS = ("jpg", "png")


def open_dali(packed: Path, manifest: Manifest, split: str, device: torch.device) -> Stream:
    """DataError if a file is not what was packed, MachineError without DALI."""
    require("dali")
    verify_once(packed, manifest, f"{split}.idx")
    tar = Watched(packed, manifest, f"{split}.tar")  # one damaged JPEG ends a pipeline
    reader = DaliReader(tar, packed / f"{split}.idx", device)
    stream = Stream(reader, packed, manifest, split, device)
    if len(reader.offsets) != len(stream):
        raise DataError(f"{packed / split}.idx: lists {len(reader.offsets)} samples, expected {len(stream)}; {REMEDY}")
    return stream


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offset and size of each sample's image in the tar, i64 [N] each. DataError for another format."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        lines = []
    version, _, count = lines[0].partition(" ") if lines else ("", "", "")
    fields = [line.split(" ", 3) for line in lines[1:]]
    known = all(f[0] in IMAGE_ENDINGS and len(f) > 2 and f[1].isdecimal() and f[2].isdecimal() for f in fields)
    if version != "v1.2" or count != str(len(fields)) or not known:
        raise DataError(f"{path}: not an index of version v1.2 that starts every sample with its image; {REMEDY}")
    places = np.array([(int(f[1]), int(f[2])) for f in fields], np.int64).reshape(-1, 2)
    return places[:, 0].copy(), places[:, 1].copy()


class DaliReader:
    """A verified tar and its index."""

    name = "dali"

    def __init__(self, tar: Watched, index: Path, device: torch.device) -> None:
        self.device, self.file = device, tar
        self.offsets, self.sizes = read_index(index)
        self._handle = tar.open()

    def read(self, ids: np.ndarray, batch_size: int) -> Iterator[np.ndarray | torch.Tensor]:
        """See stream.Reader. On a GPU each batch is a tensor there, already a copy."""
        from nvidia.dali import fn, pipeline_def, types

        on_gpu = self.device.type == "cuda"

        @pipeline_def(
            batch_size=min(batch_size, len(ids)),
            num_threads=max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))),
            device_id=(self.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=2,
        )
        def decode():
            files = fn.external_source(source=self._files(ids, batch_size), dtype=types.UINT8, ndim=1)
            # Pillow's ways: triangle filter for colour, exact inverse DCT, no turning by EXIF
            return fn.decoders.image(
                files,
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,
                jpeg_fancy_upsampling=True,
                use_fast_idct=False,
            )

        pipeline = decode()
        pipeline.build()
        copy = _Copier(self.device) if on_gpu else _on_host
        try:
            for _ in range(0, len(ids), batch_size):
                (images,) = pipeline.run()
                yield copy(images)
        finally:
            del pipeline  # ends its threads

    def _files(self, ids: np.ndarray, batch_size: int) -> Iterator[list[np.ndarray]]:
        """For each batch the bytes of its images; the last batch is as small as it falls."""
        starts, sizes = self.offsets[ids].tolist(), self.sizes[ids].tolist()
        for first in range(0, len(ids), batch_size):
            part = slice(first, first + batch_size)
            pieces = zip(sizes[part], starts[part], strict=True)
            yield [np.frombuffer(os.pread(self._handle, size, start), np.uint8) for size, start in pieces]


def _on_host(images) -> np.ndarray:
    """A view of DALI's batch of equal images, u8 [b, S, S, 3]."""
    return images.as_array()


class _Copier:
    """Copies DALI's batches on a GPU, on a stream of its own: to wait for a copy on the stream that trains would be to
    wait for all the training that is queued there. It has never run on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def __call__(self, images) -> torch.Tensor:
        """A copy of DALI's batch, u8 [b, S, S, 3], that is done: DALI may fill its buffer again."""
        from nvidia.dali.plugin.pytorch import feed_ndarray

        trains = torch.cuda.current_stream(self.device)
        dense = images.as_tensor()
        with torch.cuda.stream(self.stream):  # also whose memory it is: what the training let go of may still be read
            copy = torch.empty(dense.shape(), dtype=torch.uint8, device=self.device)
            feed_ndarray(dense, copy, cuda_stream=self.stream)
            done = self.stream.record_event()
        trains.wait_event(done)
        copy.record_stream(trains)  # it is given back to our stream only when the training has read it
        done.synchronize()
        return copy
