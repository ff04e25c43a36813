"""Tables the compiled kernels read: taps cut to one width, and each source row's share of a crop's mean."""

from functools import lru_cache

import numpy as np

from fastres.views import colour
from fastres.views.resample import matrix

# f64 [6, 3]: mean, std, gray, then what one unit of each lighting number adds to red, green and blue
CONSTANTS = np.concatenate([[colour.MEAN, colour.STD, colour.GRAY], (colour.EIGENVECTORS * colour.EIGENVALUES).T])


@lru_cache(maxsize=64)
def band(side: int, size: int, convention: str, width: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """First source sample i64 [size], never falling, and weights f32 [size, T].

    T is 1 for the identity, else 4 or more, and at least `width`. first + T <= side.
    """
    dense = matrix(side, size, convention)
    if not width and np.array_equal(dense, np.eye(side)):
        return np.arange(side), np.ones((side, 1), np.float32)
    nonzero = dense != 0
    first, last = nonzero.argmax(1), side - 1 - nonzero[:, ::-1].argmax(1)
    first = np.minimum.accumulate(first[::-1])[::-1]  # a row that copies one sample must not start after its next
    width = max(width, 4, int((last - first).max()) + 1)
    first = np.minimum(first, side - width)
    weight = np.take_along_axis(dense, first[:, None] + np.arange(width), axis=1)
    return first, weight.astype(np.float32)


@lru_cache(maxsize=64)
def shares(side: int, size: int, crop: int, convention: str) -> np.ndarray:
    """f32 [room + 1, S]: source row s makes up shares[top, s] of the mean of the crop at `top`."""
    dense = matrix(side, size, convention)
    return np.stack([dense[top : top + crop].mean(0) for top in range(size - crop + 1)]).astype(np.float32)
