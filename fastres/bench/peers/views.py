"""The same work by the libraries a user would pick instead, each in its fastest form that we know of.

All of them: gather by row, bicubic resize to S * u, random crop, mirror, colour jitter 0.4, PCA lighting,
normalisation, float32 in channels-last layout. `make` returns a function from rows (i64 [B]) to that tensor.
None of them can be told to write into a given tensor.
"""

import multiprocessing
import os
from collections.abc import Callable

import numpy as np
import torch

from fastres.machine.errors import MachineError
from fastres.views import colour
from fastres.views.geometry import Geometry

Work = Callable[[torch.Tensor], torch.Tensor]
CLAMPS = "clamps after each colour step"
BATCHED = "one crop, mirror, jitter and lighting for the whole batch; "
LIGHTING_ROWS = (colour.EIGENVECTORS * colour.EIGENVALUES).T * 0.1


def torchvision_tensors(images: torch.Tensor, geometry: Geometry, *, bytes_first: bool) -> Work:
    """torchvision v2 on a batch: one crop, flip, jitter and lighting for all of it, which spares it most of the work.

    Resized as uint8 in channels-last layout, its fastest resize on a CPU. bytes_first: jittered as uint8, too.
    """
    from torchvision.transforms import v2

    steps = [v2.RandomCrop(geometry.crop), v2.RandomHorizontalFlip()]
    jitter, to_float = v2.ColorJitter(0.4, 0.4, 0.4), v2.ToDtype(torch.float32, scale=True)
    transform = v2.Compose([*steps, jitter, to_float] if bytes_first else [*steps, to_float, jitter])
    normalise = v2.Normalize(colour.MEAN.tolist(), colour.STD.tolist())
    enlarge = v2.Resize([geometry.resized] * 2, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    lights = torch.tensor(LIGHTING_ROWS, dtype=torch.float32, device=images.device)

    def work(rows: torch.Tensor) -> torch.Tensor:
        x = images[rows].permute(0, 3, 1, 2)
        if geometry.upscale > 1:
            x = enlarge(x)
        x = transform(x)
        x = x + (torch.randn(3, device=x.device) @ lights)[:, None, None]
        return normalise(x).contiguous(memory_format=torch.channels_last)

    return work


def kornia_tensors(images: torch.Tensor, geometry: Geometry) -> Work:
    """kornia: its ColorJitter is torchvision's, per sample. Resized by torch as bytes, which is faster."""
    import kornia.augmentation as k
    from torch.nn import functional

    crop = k.RandomCrop((geometry.crop, geometry.crop), cropping_mode="slice")
    flip, jitter = k.RandomHorizontalFlip(p=0.5), k.ColorJitter(0.4, 0.4, 0.4, 0.0, p=1.0)
    normalise = k.Normalize(torch.tensor(colour.MEAN).float(), torch.tensor(colour.STD).float()).to(images.device)
    lights = torch.tensor(LIGHTING_ROWS, dtype=torch.float32, device=images.device)

    @torch.no_grad()
    def work(rows: torch.Tensor) -> torch.Tensor:
        x = images[rows].permute(0, 3, 1, 2)
        if geometry.upscale > 1:
            size = (geometry.resized,) * 2
            source = x if x.device.type == "cpu" else x.float()
            x = functional.interpolate(source, size, mode="bicubic", antialias=True)
        x = jitter(flip(crop(x.float() / 255)))
        x = x + (torch.randn(len(x), 3, device=x.device) @ lights)[:, :, None, None]
        return normalise(x).contiguous(memory_format=torch.channels_last)

    return work


def triton_augment(images: torch.Tensor, geometry: Geometry) -> Work:
    """triton-augment, a GPU's only: crop, mirror, jitter and normalisation per image in one kernel, in a fixed order.
    torch resizes before it and lights behind it. Written from version 0.3's source; nobody has run it here."""
    if images.device.type != "cuda":
        raise MachineError("triton-augment works on a GPU")
    import triton_augment
    from torch.nn import functional

    augment = triton_augment.TritonFusedAugment(
        crop_size=geometry.crop,
        horizontal_flip_p=0.5,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        mean=tuple(colour.MEAN.tolist()),
        std=tuple(colour.STD.tolist()),
    )
    lights = torch.tensor(LIGHTING_ROWS / colour.STD, dtype=torch.float32, device=images.device)

    @torch.no_grad()
    def work(rows: torch.Tensor) -> torch.Tensor:
        x = images[rows].permute(0, 3, 1, 2).float() / 255
        if geometry.upscale > 1:
            x = functional.interpolate(x, (geometry.resized,) * 2, mode="bicubic", antialias=True)
        x = augment(x.contiguous())
        x = x + (torch.randn(len(x), 3, device=x.device) @ lights)[:, :, None, None]
        return x.contiguous(memory_format=torch.channels_last)

    return work


def pil_transform(geometry: Geometry) -> Callable:
    """One PIL image to f32 [3, H, H], as torchvision's reference training does it."""
    from torchvision.transforms import v2

    steps = [v2.Resize(geometry.resized, interpolation=v2.InterpolationMode.BICUBIC)] if geometry.upscale > 1 else []
    transform = v2.Compose(
        [
            *steps,
            v2.RandomCrop(geometry.crop),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.4, 0.4, 0.4),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    lights = torch.tensor(LIGHTING_ROWS, dtype=torch.float32)
    normalise = v2.Normalize(colour.MEAN.tolist(), colour.STD.tolist())
    return lambda image: normalise(transform(image) + (torch.randn(3) @ lights)[:, None, None])


class PilPool:
    """torchvision on PIL images, one process per core, writing into one shared batch: no copy between processes."""

    def __init__(self, images: torch.Tensor, geometry: Geometry, batch: int) -> None:
        if images.device.type != "cpu":
            raise MachineError("PIL works on the CPU")
        shape = batch, 3, geometry.crop, geometry.crop
        self.out = torch.empty(shape).contiguous(memory_format=torch.channels_last).share_memory_()
        self.workers = len(os.sched_getaffinity(0))
        arguments = images[: min(len(images), 2000)].share_memory_(), geometry, self.out
        context = multiprocessing.get_context("spawn")
        self.pool = context.Pool(self.workers, _start_pil, arguments)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        parts = np.array_split(np.arange(len(rows)), self.workers)
        jobs = [(part[0], rows[part].numpy() % 2000) for part in parts if len(part)]
        self.pool.map(_pil_part, jobs, chunksize=1)
        return self.out[: len(rows)]

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


def _start_pil(images: torch.Tensor, geometry: Geometry, out: torch.Tensor) -> None:
    torch.set_num_threads(1)
    _start_pil.state = images.numpy(), pil_transform(geometry), out


def _pil_part(job: tuple[int, np.ndarray]) -> None:
    from PIL import Image

    images, transform, out = _start_pil.state
    start, rows = job
    for i, row in enumerate(rows):
        out[start + i] = transform(Image.fromarray(images[row % len(images)]))


PEERS = (  # name, what is not equal, maker of (images, geometry, batch)
    (
        "torchvision v2, jitter on bytes",
        BATCHED + CLAMPS + ", rounds to bytes",
        lambda images, geometry, _: torchvision_tensors(images, geometry, bytes_first=True),
    ),
    (
        "torchvision v2",
        BATCHED + CLAMPS,
        lambda images, geometry, _: torchvision_tensors(images, geometry, bytes_first=False),
    ),
    ("kornia", CLAMPS, lambda images, geometry, _: kornia_tensors(images, geometry)),
    (
        "triton-augment",
        CLAMPS + ", contrast around 0.5, fixed order",
        lambda images, geometry, _: triton_augment(images, geometry),
    ),
    ("torchvision PIL", CLAMPS + ", rounds to bytes", PilPool),
)
