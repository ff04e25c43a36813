"""Boxes by chance: which part of the image a resized crop shows, and which part of a view is erased.

Both follow torchvision's RandomResizedCrop and RandomErasing: area uniform, logarithm of width over height uniform,
ten tries for a box that fits. A crop's box is not rounded to whole pixels of the image, as torchvision's is: of 64
pixels a rounded box would be too few.
"""

import math

import numpy as np

from fastres.views.draw import CROP_PLACE, CROP_SHAPES, ERASED_SHAPES, ERASING, WORD, Key, unit

TRIES = 10


def crop_boxes(ids: np.ndarray, key: Key, settings) -> np.ndarray:
    """f64 [B, 4]: top, left, height and width of each sample's box, as shares of the image's side.

    Where no try fits, the middle of the image, in the allowed shape that is nearest to a square.
    """
    height, width = _shapes(ids, key, CROP_SHAPES, settings.scale, settings.ratio, lambda side: side <= 1)
    whole = crop_without_a_fit(settings.ratio)
    none = np.isnan(height)
    height, width = np.where(none, whole[0], height), np.where(none, whole[1], width)
    top, left = (np.where(none, 0.5, unit(word)) for word in key.words(ids, CROP_PLACE)[:2])
    return np.stack([top * (1 - height), left * (1 - width), height, width], axis=-1)


def crop_without_a_fit(ratio: tuple[float, float]) -> tuple[float, float]:
    """Height and width of the largest box, as shares of a square's side, whose width over height is in the range."""
    nearest = min(max(1.0, ratio[0]), ratio[1])
    return min(1.0, 1 / nearest), min(1.0, nearest)


def erased_boxes(ids: np.ndarray, key: Key, settings, crop: int) -> np.ndarray:
    """i64 [B, 4]: top, left, bottom and right (exclusive) of what is erased of each view of `crop` pixels; zeros where
    chance says none, or no try is smaller than the view both ways."""
    gate, top, left, _ = key.words(ids, ERASING)
    law = settings.erasing_scale, settings.erasing_ratio
    sides = _shapes(ids, key, ERASED_SHAPES, *law, lambda side: np.floor(side * crop + 0.5) < crop)
    wanted = (gate < int(settings.erasing * WORD)) & ~np.isnan(sides[0])
    height, width = (rounded(np.where(wanted, side, 0.0), crop) for side in sides)
    top, left = (top * (crop - height + 1)) >> 32, (left * (crop - width + 1)) >> 32
    return np.stack([top, left, top + height, left + width], axis=-1) * wanted[:, None]


def rounded(share: np.ndarray, crop: int) -> np.ndarray:
    """A share of a view's side in whole pixels, i64, halves up."""
    return np.floor(share * crop + 0.5).astype(np.int64)


def _shapes(ids: np.ndarray, key: Key, block: int, scale, ratio, fits) -> tuple[np.ndarray, np.ndarray]:
    """Height and width, f64 [B] each, of the first try of which both fit; NaN where none does."""
    found = np.full((2, len(ids)), np.nan)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for number in range(TRIES):
        area, shape = key.words(ids, block + number // 2)[2 * (number % 2) :][:2]
        area = scale[0] + (scale[1] - scale[0]) * unit(area)
        shape = np.exp(low + (high - low) * unit(shape))
        tried = np.stack([np.sqrt(area / shape), np.sqrt(area * shape)])
        open_ = np.isnan(found[0]) & fits(tried[0]) & fits(tried[1])
        found = np.where(open_, tried, found)
    return found[0], found[1]
