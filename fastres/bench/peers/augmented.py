"""Resized crops, erasing, MixUp and CutMix by the libraries a user would pick instead, beside jitter and lighting.

As peers/views.py in all else. Each library does the one thing more as its own documentation has it, on every batch.
"""

from collections.abc import Callable

import torch

from fastres.bench.peers.views import BATCHED, CLAMPS, LIGHTING_ROWS, Work
from fastres.schedules.types import ViewSettings
from fastres.views import colour
from fastres.views.geometry import Geometry

CLASSES = 200


def torchvision_tensors(images: torch.Tensor, geometry: Geometry, settings: ViewSettings) -> Work:
    """torchvision v2 on a batch: one crop, jitter, light, erased box and mixture for all of it."""
    from torchvision.transforms import v2

    bicubic, crop = v2.InterpolationMode.BICUBIC, geometry.crop
    if settings.crop == "resized":
        placed = [v2.RandomResizedCrop(crop, settings.scale, settings.ratio, interpolation=bicubic, antialias=True)]
    else:
        enlarge = [v2.Resize([geometry.resized] * 2, interpolation=bicubic, antialias=True)]
        placed = [*(enlarge if geometry.upscale > 1 else []), v2.RandomCrop(crop)]
    steps = [*placed, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.ColorJitter(0.4, 0.4, 0.4)]
    transform = v2.Compose(steps)
    after = [v2.Normalize(colour.MEAN.tolist(), colour.STD.tolist())]
    if settings.erasing:
        after.append(v2.RandomErasing(settings.erasing, settings.erasing_scale, settings.erasing_ratio))
    normalise = v2.Compose(after)
    mix = _torchvision_mixer(settings)
    lights = torch.tensor(LIGHTING_ROWS, dtype=torch.float32, device=images.device)
    labels = torch.arange(len(images), device=images.device) % CLASSES

    def work(rows: torch.Tensor) -> torch.Tensor:
        x = transform(images[rows].permute(0, 3, 1, 2))
        x = normalise(x + (torch.randn(3, device=x.device) @ lights)[:, None, None])
        x = mix(x, labels[rows])[0] if mix else x
        return x.contiguous(memory_format=torch.channels_last)

    return work


def _torchvision_mixer(settings: ViewSettings) -> Callable | None:
    from torchvision.transforms import v2

    if settings.mixup:
        return v2.MixUp(alpha=settings.mixup, num_classes=CLASSES)
    return v2.CutMix(alpha=settings.cutmix, num_classes=CLASSES) if settings.cutmix else None


def kornia_tensors(images: torch.Tensor, geometry: Geometry, settings: ViewSettings) -> Work:
    """kornia: each image its own crop, jitter, light, box and mixture."""
    import kornia.augmentation as k
    from torch.nn import functional

    size = geometry.crop, geometry.crop
    flip, jitter = k.RandomHorizontalFlip(p=0.5), k.ColorJitter(0.4, 0.4, 0.4, 0.0, p=1.0)
    if settings.crop == "resized":
        crop = k.RandomResizedCrop(size, settings.scale, settings.ratio, resample="bicubic", cropping_mode="resample")
    else:
        crop = k.RandomCrop(size, cropping_mode="slice")
    normalise = k.Normalize(torch.tensor(colour.MEAN).float(), torch.tensor(colour.STD).float()).to(images.device)
    erase = k.RandomErasing(settings.erasing_scale, settings.erasing_ratio, p=settings.erasing)
    mix = k.RandomMixUpV2(data_keys=["input", "class"]) if settings.mixup else None
    mix = (
        k.RandomCutMixV2(beta=settings.cutmix, data_keys=["input", "class"], use_correct_lambda=True)
        if settings.cutmix
        else mix
    )
    lights = torch.tensor(LIGHTING_ROWS, dtype=torch.float32, device=images.device)
    labels = torch.arange(len(images), device=images.device) % CLASSES

    @torch.no_grad()
    def work(rows: torch.Tensor) -> torch.Tensor:
        x = images[rows].permute(0, 3, 1, 2)
        if geometry.upscale > 1 and settings.crop == "fixed":
            source = x if x.device.type == "cpu" else x.float()
            x = functional.interpolate(source, (geometry.resized,) * 2, mode="bicubic", antialias=True)
        x = jitter(flip(crop(x.float() / 255)))
        x = normalise(x + (torch.randn(len(x), 3, device=x.device) @ lights)[:, :, None, None])
        x = erase(x) if settings.erasing else x
        x = mix(x, labels[rows])[0] if mix else x
        return x.contiguous(memory_format=torch.channels_last)

    return work


PEERS = (  # name, what is not equal, maker of (images, geometry, settings)
    ("torchvision v2", "one box or mixture, " + BATCHED + CLAMPS, torchvision_tensors),
    ("kornia", CLAMPS, kornia_tensors),
)
