"""The loaders a user would pick instead, fed from the same packed pixels, each with its best settings.

Every maker takes (source, geometry, batch, device) and returns a function that starts an epoch: an iterator of
(float32 [B, 3, H, H], labels). Raises ImportError where its library is not installed.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastres.bench.peers import decoders
from fastres.bench.peers import views as peer_views
from fastres.data.manifest import Manifest
from fastres.views import colour
from fastres.views.geometry import Geometry

Epochs = Callable[[], Iterator]
CORES = len(os.sched_getaffinity(0))


@dataclass
class Source:
    """The split as every peer wants it: an array, a tree of JPEGs, a scratch folder for formats of their own."""

    images: np.ndarray
    labels: np.ndarray
    files: list[Path] | None
    scratch: Path

    @classmethod
    def of(cls, packed: Path, manifest: Manifest, split: str, tree: Path | None, scratch: Path) -> "Source":
        """Read the packed split; take its JPEGs from `tree` where that has them."""
        images = np.load(packed / f"{split}.images.npy")
        labels = np.load(packed / f"{split}.labels.npy").astype(np.int64)
        files = None
        if tree is not None:
            files = [tree / line for line in (packed / f"{split}.files.txt").read_text().splitlines()]
        return cls(images, labels, files, scratch)

    def jpegs(self) -> list[Path]:
        """The split as JPEG files; encoded at quality 90 once where no tree was named."""
        if self.files is None:
            from PIL import Image

            self.files = []
            for i, image in enumerate(self.images):
                path = self.scratch / f"{i}.jpg"
                Image.fromarray(image).save(path, quality=90)
                self.files.append(path)
        return self.files


class _JpegFolder(torch.utils.data.Dataset):
    """torchvision's ImageFolder, without its walk over the tree."""

    def __init__(self, source: Source, geometry: Geometry) -> None:
        self.files, self.labels = [str(path) for path in source.jpegs()], source.labels
        self.transform = peer_views.pil_transform(geometry)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.files[i]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[i])


def torchvision_pil(source: Source, geometry: Geometry, batch: int, device: torch.device) -> Epochs:
    """JPEG files, PIL, a DataLoader with a process per core."""
    dataset = _JpegFolder(source, geometry)
    pinned = device.type == "cuda"

    def epoch() -> Iterator:
        # a new loader each time: persistent workers would fill their queues while another contender has its turn
        loader = torch.utils.data.DataLoader(dataset, batch, shuffle=True, num_workers=CORES, pin_memory=pinned)
        for x, labels in loader:
            yield x.to(device, memory_format=torch.channels_last, non_blocking=True), labels.to(device)

    return epoch


def _in_memory(source: Source, work, batch: int, device: torch.device) -> Epochs:
    labels = torch.from_numpy(source.labels).to(device)

    def epoch() -> Iterator:
        for rows in torch.randperm(len(labels), device=device).split(batch):
            yield work(rows), labels[rows]

    return epoch


def torchvision_tensors(source: Source, geometry: Geometry, batch: int, device: torch.device) -> Epochs:
    """Pixels in memory, torchvision v2 on whole batches: faster than a DataLoader around it."""
    images = torch.from_numpy(source.images).to(device)
    return _in_memory(source, peer_views.torchvision_tensors(images, geometry, bytes_first=False), batch, device)


def kornia_tensors(source: Source, geometry: Geometry, batch: int, device: torch.device) -> Epochs:
    """Pixels in memory, kornia on whole batches."""
    images = torch.from_numpy(source.images).to(device)
    return _in_memory(source, peer_views.kornia_tensors(images, geometry), batch, device)


def ffcv(source: Source, geometry: Geometry, batch: int, device: torch.device) -> Epochs:
    """FFCV's raw format, written by its own writer; after it torchvision v2 with a uint8 channels-last resize."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor, ToTorchImage
    from ffcv.writer import DatasetWriter

    path = source.scratch / "raw.beton"
    if not path.exists():
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        pairs = [(image, int(label)) for image, label in zip(source.images, source.labels)]
        DatasetWriter(str(path), fields, num_workers=CORES).from_indexed_dataset(pairs)
    loader = Loader(
        str(path),
        batch_size=batch,
        num_workers=CORES,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={
            "image": [SimpleRGBImageDecoder(), ToTensor(), ToTorchImage(channels_last=True)],
            "label": [IntDecoder(), ToTensor(), Squeeze(1)],
        },
    )

    def epoch() -> Iterator:
        for x, labels in loader:
            yield decoders.viewed(x.permute(0, 2, 3, 1), labels, geometry, device)

    return epoch


def dali(source: Source, geometry: Geometry, batch: int, device: torch.device) -> Epochs:
    """DALI from JPEG files; on a GPU it decodes and augments there."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    where = "gpu" if device.type == "cuda" else "cpu"
    files, labels = [str(path) for path in source.jpegs()], source.labels.tolist()

    @pipeline_def(batch_size=batch, num_threads=CORES, device_id=0 if where == "gpu" else None)
    def pipeline():
        jpegs, label = fn.readers.file(files=files, labels=labels, random_shuffle=True, name="reader")
        x = fn.decoders.image(jpegs, device="mixed" if where == "gpu" else "cpu", output_type=types.RGB)
        if geometry.upscale > 1:
            x = fn.resize(x, size=[geometry.resized] * 2, interp_type=types.INTERP_CUBIC, antialias=False)
        factors = [fn.random.uniform(range=[0.6, 1.4]) for _ in range(3)]
        x = fn.color_twist(x, brightness=factors[0], contrast=factors[1], saturation=factors[2])
        x = fn.crop_mirror_normalize(
            x,
            dtype=types.FLOAT,
            output_layout="CHW",
            crop=[geometry.crop] * 2,
            crop_pos_x=fn.random.uniform(range=[0.0, 1.0]),
            crop_pos_y=fn.random.uniform(range=[0.0, 1.0]),
            mirror=fn.random.coin_flip(),
            mean=(255 * colour.MEAN).tolist(),
            std=(255 * colour.STD).tolist(),
        )
        return x, label

    built = pipeline()
    built.build()
    iterator = DALIGenericIterator(
        [built], ["x", "label"], reader_name="reader", last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=True
    )

    def epoch() -> Iterator:
        for (made,) in iterator:
            x = made["x"].contiguous(memory_format=torch.channels_last)
            yield x, made["label"].flatten()

    return epoch


PEERS = (  # name, what is not equal, maker
    ("torchvision PIL", peer_views.CLAMPS + ", rounds to bytes", torchvision_pil),
    ("torchvision v2", peer_views.BATCHED + peer_views.CLAMPS, torchvision_tensors),
    ("kornia", peer_views.CLAMPS, kornia_tensors),
    ("FFCV raw + v2", peer_views.BATCHED + peer_views.CLAMPS, ffcv),
    ("SPDL + v2", "FFmpeg's decoding; " + peer_views.BATCHED + peer_views.CLAMPS, decoders.spdl),
    ("torchcodec + v2", peer_views.BATCHED + peer_views.CLAMPS, decoders.torchcodec),
    ("DALI", "no lighting, contrast around 0.5, fixed order; " + peer_views.CLAMPS, dali),
)
