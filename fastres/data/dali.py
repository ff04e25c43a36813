"""The dali engine: the original JPEGs of <split>.tar, decoded by DALI in our order.

DALI's own readers shuffle by their own rules and pad; here an external source hands it slices of the memory-mapped
tar, found through <split>.idx, for exactly the ids asked for. On the CPU (device_id=None) the pixels are Pillow's,
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
from fastres.data.trust import verify_once
from fastres.errors import DataError

IMAGE_ENDINGS = ("jpg", "png")


def open_dali(packed: Path, manifest: Manifest, split: str, device: torch.device) -> Stream:
    """DataError if a file is not what was packed, MachineError without DALI."""
    require("dali")
    for name in (f"{split}.idx", f"{split}.tar"):
        verify_once(packed, manifest, name)  # one damaged JPEG ends a pipeline
    reader = DaliReader(packed / f"{split}.tar", packed / f"{split}.idx", device)
    stream = Stream(reader, packed, manifest, split, device)
    if len(reader.offsets) != len(stream):
        raise DataError(f"{packed / split}.idx: lists {len(reader.offsets)} samples, expected {len(stream)}; {REMEDY}")
    return stream


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offset and size of each sample's image in the tar, i64 [N] each. DataError for another format."""
    lines = path.read_text(encoding="ascii").splitlines()
    version, _, count = lines[0].partition(" ") if lines else ("", "", "")
    fields = [line.split(" ", 3) for line in lines[1:]]
    if version != "v1.2" or count != str(len(fields)) or any(f[0] not in IMAGE_ENDINGS for f in fields):
        raise DataError(f"{path}: not an index of version v1.2 that starts every sample with its image; {REMEDY}")
    places = np.array([(int(f[1]), int(f[2])) for f in fields], np.int64).reshape(-1, 2)
    return places[:, 0].copy(), places[:, 1].copy()


class DaliReader:
    """A verified tar and its index."""

    name = "dali"

    def __init__(self, tar: Path, index: Path, device: torch.device) -> None:
        self.device = device
        self.offsets, self.sizes = read_index(index)
        self._bytes = np.asarray(np.memmap(tar, np.uint8, mode="r"))  # slices of the plain class cost a tenth

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
                files, device="mixed" if on_gpu else "cpu", output_type=types.RGB, adjust_orientation=False,
                jpeg_fancy_upsampling=True, use_fast_idct=False,
            )  # fmt: skip

        pipeline = decode()
        pipeline.build()
        try:
            for _ in range(0, len(ids), batch_size):
                (images,) = pipeline.run()
                yield _on_gpu(images, self.device) if on_gpu else _on_host(images)
        finally:
            del pipeline  # ends its threads

    def _files(self, ids: np.ndarray, batch_size: int) -> Iterator[list[np.ndarray]]:
        """For each batch the bytes of its images; the last batch is as small as it falls."""
        starts, ends = self.offsets[ids].tolist(), (self.offsets[ids] + self.sizes[ids]).tolist()
        for first in range(0, len(ids), batch_size):
            part = slice(first, first + batch_size)
            yield [self._bytes[a:b] for a, b in zip(starts[part], ends[part], strict=True)]


def _on_host(images) -> np.ndarray:
    """A view of DALI's batch of equal images, u8 [b, S, S, 3]."""
    return images.as_array()


def _on_gpu(images, device: torch.device) -> torch.Tensor:
    """A copy of DALI's batch, u8 [b, S, S, 3], made on PyTorch's stream."""
    from nvidia.dali.plugin.pytorch import feed_ndarray

    dense = images.as_tensor()
    copy = torch.empty(dense.shape(), dtype=torch.uint8, device=device)
    feed_ndarray(dense, copy, cuda_stream=torch.cuda.current_stream(device))
    torch.cuda.current_stream(device).synchronize()  # before DALI may fill its buffer again
    return copy
