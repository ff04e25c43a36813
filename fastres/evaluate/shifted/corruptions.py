"""Fifteen corruptions of photos, at the third of five severities.

Kinds and constants are those of Tiny ImageNet-C (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR 2019), which was made of 64-pixel photos: lengths here are theirs times side
/ 64. Three are made in another way: frost of noise instead of photos of frost, fog of octaves of noise, and glass shows
neighbours instead of swapping them. So errors on these compare networks with each other, on data of one side, and not
with that paper's table.

Every function takes photos f32 [B, 3, S, S] from 0 to 1 and the chance of their ids, and returns the same shape, not
yet clipped. Chance is a function of the corruption and the id alone, so no batch size and no order changes a photo.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from fastres.evaluate.shifted.tools import Chance, blur, filtered_by_disk, octaves, sample, streak, zoomed

VERSION = 1  # of all of them together: what was judged on another is judged anew
GREY = (0.299, 0.587, 0.114)
SIDE = 64  # of the photos that the constants were chosen for
FROST = (0.75, 0.85, 0.95)  # colour of ice


def gaussian_noise(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    return x + 0.12 * chance.normal(*x.shape[1:])


def shot_noise(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """A pixel counts 50 photons at most."""
    return chance.poisson(50 * x) / 50


def impulse_noise(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Of all values 2.5 % become 0 and as many 1."""
    u = chance.uniform(0, 1, *x.shape[1:])
    return torch.where(u < 0.025, 0.0, torch.where(u > 0.975, 1.0, x))


def defocus_blur(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    return filtered_by_disk(x, 1.5 * x.shape[-1] / SIDE)


def glass_blur(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Blurred; twice every pixel shows what lies up to a 64th of the side away; blurred again."""
    side = x.shape[-1]
    unit, centres = side / SIDE, torch.arange(side) + 0.5
    x = blur(x, 0.6 * unit)
    for _ in range(2):
        moved = unit * chance.uniform(-1, 1, 2, side, side)
        x = sample(x, centres[:, None] + moved[:, 0], centres + moved[:, 1])
    return blur(x, 0.6 * unit)


def motion_blur(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    unit = x.shape[-1] / SIDE
    return streak(x, 10 * unit, 2 * unit, chance.uniform(-45, 45))


def zoom_blur(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """The photo twice and fifteen enlargements of it, up to 1.15 times, on each other."""
    return (x + sum(zoomed(x, 1 + step / 100) for step in range(16))) / 17


def snow(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Flakes that fall in streaks, twice, over a photo that is bleached."""
    unit = x.shape[-1] / SIDE
    flakes = zoomed((0.15 + 0.3 * chance.normal(*x.shape[2:]))[:, None], 1.75)
    flakes = torch.where(flakes < 0.55, 0.0, flakes).clamp(0, 1)
    flakes = streak(flakes, 10 * unit, 4 * unit, chance.uniform(-135, -45))
    bleached = 0.7 * x + 0.3 * torch.maximum(x, 1.5 * _grey(x) + 0.5)
    return bleached + flakes + flakes.flip(-1, -2)


def frost(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Ridges of noise as ice on a window."""
    crystals = 1 - (2 * octaves(chance, x.shape[-1], weaker=1.6) - 1).abs()
    return 0.8 * x + 0.45 * crystals.square() * torch.tensor(FROST)[:, None, None]


def fog(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Light of large, soft clouds is added, as much as the brightest pixel has at most, and all is darkened again."""
    most = x.amax((1, 2, 3), keepdim=True)
    return (x + octaves(chance, x.shape[-1], weaker=6.25)) * most / (most + 1)


def brightness(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """HSV's value is raised by 0.3; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    raised = (value + 0.3).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp(min=1e-6), raised)


def contrast(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + 0.2 * (x - mean)


def elastic(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Three points are pulled by up to 0.06 sides, and what lies between is bent by smoothed noise."""
    side = x.shape[-1]
    third, half = side / 3, side / 2
    points = torch.tensor([[half + third, half + third], [half + third, half - third], [half - third, half - third]])
    ones = torch.ones(len(x), 3, 1)
    pulled = torch.cat([points + chance.uniform(-0.06 * side, 0.06 * side, 3, 2), ones], dim=2)
    back = torch.linalg.solve(pulled, points.expand(len(x), 3, 2))  # [B, 3, 2]: [row, column, 1] @ back
    bend = 0.1 * side * blur(chance.uniform(-1, 1, 2, side, side), 0.08 * side)
    centres = torch.arange(side) + 0.5
    rows, columns = centres[:, None] + bend[:, 0], centres + bend[:, 1]
    found = torch.stack([rows, columns, torch.ones_like(rows)], dim=-1) @ back[:, None]
    return sample(x, found[..., 0], found[..., 1])


def pixelate(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    side = x.shape[-1]
    fewer = max(1, int(0.7 * side))

    def coarse(photo: Image.Image) -> Image.Image:
        return photo.resize((fewer, fewer), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX)

    return _one_by_one(x, coarse)


def jpeg(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Saved at quality 50 and read again."""

    def saved(photo: Image.Image) -> Image.Image:
        photo.save(file := io.BytesIO(), "JPEG", quality=50)
        return Image.open(file)

    return _one_by_one(x, saved)


Corruption = Callable[[torch.Tensor, Chance], torch.Tensor]
CORRUPTIONS: dict[str, dict[str, Corruption]] = {
    "noise": {"gaussian noise": gaussian_noise, "shot noise": shot_noise, "impulse noise": impulse_noise},
    "blur": {"defocus": defocus_blur, "glass": glass_blur, "motion": motion_blur, "zoom": zoom_blur},
    "weather": {"snow": snow, "frost": frost, "fog": fog, "brightness": brightness},
    "digital": {"contrast": contrast, "elastic": elastic, "pixelate": pixelate, "jpeg": jpeg},
}
NAMES = tuple(name for kind in CORRUPTIONS.values() for name in kind)
_FUNCTIONS = {name: function for kind in CORRUPTIONS.values() for name, function in kind.items()}


def corrupt(images: np.ndarray, ids: Sequence[int], name: str) -> np.ndarray:
    """Photos u8 [B, S, S, 3] of the samples `ids`, corrupted; `name`: one of NAMES. u8, the same shape."""
    assert len(images) == len(ids) and images.dtype == np.uint8
    x = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
    made = _FUNCTIONS[name](x, Chance(ids, NAMES.index(name)))
    return (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _grey(x: torch.Tensor) -> torch.Tensor:
    return (x * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def _one_by_one(x: torch.Tensor, change: Callable[[Image.Image], Image.Image]) -> torch.Tensor:
    """What Pillow makes of each photo."""
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = np.stack([np.asarray(change(Image.fromarray(photo)).convert("RGB")) for photo in pixels])
    return torch.from_numpy(made.astype(np.float32) / 255).permute(0, 3, 1, 2)
