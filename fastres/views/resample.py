"""Bicubic resampling as a matrix: y = R x, one row of R per output sample.

Two conventions, because the two sources of this project disagree:

half-pixel  sample centres at (i + 1/2) * src/dst, Keys' cubic with a = -0.5, widened by src/dst when shrinking
            (antialiasing), taps outside the image dropped and the rest renormalised. What PIL's BICUBIC does,
            so what torchvision's pretrained weights saw.
torch7      corners aligned: position i * (src-1)/(dst-1), Catmull-Rom through 4 points, the missing point beyond
            an edge extrapolated on a line (p[-1] = 2 p[0] - p[1]), last sample copied, never antialiased.
            What Torch7's image.scale(..., 'bicubic') does, so what the paper did (images and filters).

Every row sums to 1, so a colour transform that is affine may be applied before or after resampling.
"""

from functools import lru_cache

import numpy as np

from fastres.machine.errors import UsageError
from fastres.schedules.view_settings import CONVENTIONS


@lru_cache(maxsize=64)
def matrix(src: int, dst: int, convention: str) -> np.ndarray:
    """The dense resampling matrix, f64 [dst, src], read-only. UsageError for an unknown convention."""
    if convention == "half-pixel":
        dense = _half_pixel(src, dst)
    elif convention == "torch7":
        dense = _torch7(src, dst)
    else:
        raise UsageError(f"resampling convention is {convention!r}, expected one of {', '.join(CONVENTIONS)}")
    dense.setflags(write=False)
    return dense


def box_matrices(src: int, dst: int, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """f64 [B, dst, src]: for each part start .. start + length of src samples, f64 [B], its half-pixel matrix to dst.

    What PIL's BICUBIC does with `box`: taps reach beyond the part, and only the image's edges cut them off.
    """
    step = (length / dst)[:, None]
    stretch = np.maximum(step, 1.0)
    centre = start[:, None] + (np.arange(dst) + 0.5) * step
    distance = (np.arange(src) + 0.5) - centre[:, :, None]
    weight = _keys_cubic(distance / stretch[:, :, None])
    return weight / weight.sum(axis=2, keepdims=True)


def _half_pixel(src: int, dst: int) -> np.ndarray:
    return box_matrices(src, dst, np.zeros(1), np.full(1, float(src)))[0]


def _keys_cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _torch7(src: int, dst: int) -> np.ndarray:
    dense = np.zeros((dst, src))
    for i in range(dst):
        position = i * (src - 1) / (dst - 1) if dst > 1 else 0.0
        left = int(position)
        t = position - left
        if t == 0 or left == src - 1:  # on a sample: a copy (the last one always is)
            dense[i, left] = 1.0
            continue
        catmull_rom = (
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        )
        for offset, weight in zip((-1, 0, 1, 2), catmull_rom, strict=True):
            at = left + offset
            if at < 0:  # beyond the first sample: 2 p[0] - p[1]
                dense[i, 0] += 2 * weight
                dense[i, 1] -= weight
            elif at >= src:  # beyond the last sample: 2 p[n-1] - p[n-2]
                dense[i, src - 1] += 2 * weight
                dense[i, src - 2] -= weight
            else:
                dense[i, at] += weight
    return dense
