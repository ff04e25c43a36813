"""What corruptions are made of: chance by id, blurs, streaks, noise in octaves, and pixels from between pixels."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

FINE = 16  # points of a disk are counted on a grid so many times finer than pixels


class Chance:
    """Numbers for some samples, each sample's from a stream of its own: NumPy's Philox with the key (stream, id)."""

    def __init__(self, ids: Sequence[int], stream: int) -> None:
        self._each = [np.random.Generator(np.random.Philox(key=[stream, int(sample)])) for sample in ids]

    def normal(self, *shape: int) -> torch.Tensor:
        """f32 [B, *shape], as all of them."""
        return self._stacked([each.standard_normal(shape, np.float32) for each in self._each])

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * self._stacked([each.random(shape, np.float32) for each in self._each])

    def poisson(self, mean: torch.Tensor) -> torch.Tensor:
        """`mean`: f32 [B, ...]."""
        drawn = [each.poisson(one) for each, one in zip(self._each, mean.numpy(), strict=True)]
        return self._stacked([one.astype(np.float32) for one in drawn])

    @staticmethod
    def _stacked(drawn: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(drawn))


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """By a Gaussian of `sigma` pixels, cut at four of them or at the photo's own size; f32 [B, C, S, S]. One way after
    the other: torchvision's gaussian_blur takes both at once, which costs the product of their lengths."""
    reach, channels = min(math.ceil(4 * sigma), x.shape[-1] - 1), x.shape[1]
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    across = functional.conv2d(functional.pad(x, [reach, reach, 0, 0], mode="reflect"), kernel, groups=channels)
    return functional.conv2d(functional.pad(across, [0, 0, reach, reach], mode="reflect"), kernel.mT, groups=channels)


def filtered_by_disk(x: torch.Tensor, radius: float) -> torch.Tensor:
    """The mean of the disk of `radius` pixels around every pixel's centre, bilinear between centres: so a disk within a
    pixel blurs too."""
    reach = min(math.ceil(radius + 1), x.shape[-1] - 1)
    fine = (torch.arange((2 * reach + 1) * FINE) + 0.5) / FINE - reach - 0.5
    inside = (fine[:, None].square() + fine.square() <= radius**2).float()
    share = (1 - (fine - torch.arange(-reach, reach + 1)[:, None]).abs()).clamp(min=0)  # [taps, fine]
    kernel = share @ inside @ share.mT
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(functional.pad(x, [reach] * 4, mode="reflect"), kernel, groups=x.shape[1])


def sample(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """x f32 [B, C, S, S] at places f32 [B, S, S], bilinear; beyond the border the photo is mirrored. Places are in
    pixels from the upper left corner: a pixel's centre lies at a half."""
    grid = torch.stack([columns, rows], dim=-1) * 2 / x.shape[-1] - 1
    return functional.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)


def zoomed(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Enlarged around the centre, cut to its size."""
    side = x.shape[-1]
    places = ((torch.arange(side) + 0.5 - side / 2) / factor + side / 2).expand(len(x), side, side)
    return sample(x, places.mT, places)


def streak(x: torch.Tensor, length: float, sigma: float, degrees: torch.Tensor) -> torch.Tensor:
    """Smeared to one side, by half a Gaussian of `sigma` pixels cut at `length`; `degrees` f32 [B], 0 to the right."""
    step = min(1.0, sigma / 2)
    distances = torch.arange(math.floor(length / step) + 1) * step
    weights = torch.exp(-distances.square() / (2 * sigma**2))
    angle, centres = torch.deg2rad(degrees)[:, None, None], torch.arange(x.shape[-1]) + 0.5
    rows, columns = torch.sin(angle), torch.cos(angle)
    smeared = torch.zeros_like(x)
    for weight, distance in zip(weights / weights.sum(), distances, strict=True):
        moved_rows = (centres[:, None] + distance * rows).expand(-1, -1, len(centres))
        moved_columns = (centres + distance * columns).expand(-1, len(centres), -1)
        smeared += weight * sample(x, moved_rows, moved_columns)
    return smeared


def octaves(chance: Chance, side: int, weaker: float) -> torch.Tensor:
    """Clouds f32 [B, 1, side, side], each photo's from 0 to 1: noise on grids that double, each `weaker` times less."""
    clouds, strength, cells = torch.zeros(()), 1.0, 2
    while cells < 2 * side:
        noise = chance.uniform(-1, 1, 1, cells, cells)
        fine = functional.interpolate(noise, size=(side, side), mode="bicubic", align_corners=True)
        clouds, strength, cells = clouds + strength * fine, strength / weaker, 2 * cells
    low, high = clouds.amin((1, 2, 3), keepdim=True), clouds.amax((1, 2, 3), keepdim=True)
    return (clouds - low) / (high - low).clamp(min=1e-6)
