"""Stem init `pullback`: the 3x3/1 filter whose response to the small image is nearest to the old stem's to the large.

Let x be the source image, U_l x what the 7x7/2 stem saw (upscaled, 4 times the new input), U_s x what the 3x3/1 stem
sees (x itself where the new upscale is 1). Both are linear in x, so each response is an inner product with a patch of x
[3, n, n] around its position. With A [27, 3nn] the rows of U_s that the new filter v reads at output j, and B
[147, 3nn] those of U_l that the old filter w reads,

    v . (A x)  is to be nearest to  w . (B x):       minimise  E (v . A x - w . B x)^2  over v

where E is over patches and positions j. The normal equations are

    N v = M w,     N = E A C A^T  [27, 27],     M = E A C B^T  [27, 147],     C = Cov(x patch)  [3nn, 3nn]

Pooling phase. One output of the new stem stands for one of the old max-pool, which looks at old outputs 2j - 1, 2j and
2j + 1; we match the middle one, whose window is U_l x at 4j - 3 .. 4j + 3. Half-pixel puts pixel 4j of the large image
at (4j + 1/2)/4 - 1/2 = j - 0.375 pixels of the small one: the filter v is shifted by that. With torch7's aligned
corners the shift drifts over the image, from 0 to -0.75; v then fits all positions together.

Input covariance. C is measured on training views at the source's own size, colour jitter included, since its strong
correlation from pixel to pixel is what makes the fit good. Means are taken off, as an intercept would: BatchNorm
subtracts the response's mean anyway. Patches are taken to be as alike in one place as in another, so rows and columns
separate: A = a (x) a with one a [3, n] for rows and one for columns, averaged independently.
The least squares leave out what a 3x3 filter cannot see, so responses shrink; the BatchNorm behind, re-estimated, takes
that up, and no gain is applied.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional

from fastres.machine.errors import UsageError
from fastres.views.resample import matrix

STRIDE = 2  # patches overlap: every second one in each direction says as much


def pull_back(
    filters: torch.Tensor,
    views: Iterable[torch.Tensor],
    *,
    side: int,
    before: float,
    after: float,
    convention: str,
    stride: int = STRIDE,
) -> torch.Tensor:
    """Filters f32 [F, 3, 7, 7] -> f32 [F, 3, 3, 3], computed in float64.

    views      batches f32 [B, 3, H, H] of training views at upscale 1
    side       S, pixels a side of the source images
    before     upscale of the old stem's input, 4 times `after`, that of the new one's
    convention  which bicubic made them, see views/resample.py

    UsageError where the upscales have another ratio or the images are too small for one patch.
    """
    check_upscales(before, after)
    a, b = taps(side, before, after, convention)
    c = covariance(views, a.shape[-1], stride)
    gram, cross = _contract(a, a, c), _contract(a, b, c)
    old = filters.detach().cpu().double().numpy().reshape(len(filters), -1)
    # gray data makes N singular: of all solutions, lstsq takes the smallest
    new = np.linalg.lstsq(gram.reshape(27, 27), cross.reshape(27, 147) @ old.T, rcond=None)[0]
    return torch.from_numpy(new.T.reshape(-1, 3, 3, 3)).float()


def check_upscales(before: float, after: float) -> None:
    """UsageError unless images are enlarged by whole numbers, the old stem's by four times the new one's."""
    if before != 4 * after:
        raise UsageError(f"surgery stem:pullback: upscale goes from {before} to {after}, expected a quarter of it")
    if after < 1 or after != round(after):
        raise UsageError(
            f"surgery stem:pullback: its stage has upscale {after}, expected a whole number; other stem surgeries "
            "take fractions"
        )


def taps(side: int, before: int, after: int, convention: str) -> tuple[np.ndarray, np.ndarray]:
    """a f64 [J, 3, n] and b f64 [J, 7, n]: along one axis, how the two filters' pixels at each of J output positions
    are made of n source pixels around it. Positions whose n pixels leave the image are left out."""
    small, large = matrix(side, side * after, convention), matrix(side, side * before, convention)
    found = []
    for j in range(1, side * after - 1):
        rows = np.arange(4 * j - 3, 4 * j + 4)
        if rows[0] >= 0 and rows[-1] < len(large):
            both = np.concatenate([small[j - 1 : j + 2], large[rows]])
            used = np.flatnonzero(np.abs(both).max(0)) - j // after
            found.append((j // after, both, np.abs(used).max()))
    radius = max(reach for _, _, reach in found)
    inside = [both[:, at - radius : at + radius + 1] for at, both, _ in found if radius <= at < side - radius]
    if not inside:
        raise UsageError(f"surgery stem:pullback: images of {side} pixels are smaller than a patch of {2 * radius + 1}")
    windows = np.stack(inside)
    return windows[:, :3], windows[:, 3:]


def covariance(views: Iterable[torch.Tensor], size: int, stride: int) -> np.ndarray:
    """Covariance of all patches of `size` pixels a side, f64 [3, n, n, 3, n, n]. UsageError if a view is smaller."""
    products, total, count = 0.0, 0.0, 0
    for x in views:
        if x.shape[-1] < size:
            raise UsageError(f"surgery stem:pullback: crops of {x.shape[-1]} pixels hold no patch of {size}")
        for part in x.float().split(16):  # 16 views of 56 pixels are 60 MB of patches
            patches = functional.unfold(part, size, stride=stride).double().transpose(0, 1).flatten(1)  # [3nn, L]
            products = products + patches @ patches.T
            total = total + patches.sum(1)
            count += patches.shape[1]
    mean = total / count
    found = (products / count - torch.outer(mean, mean)).cpu().numpy()
    return found.reshape(3, size, size, 3, size, size)


def _contract(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """E (a (x) a) C (b (x) b)^T over positions: a [J, s, n], b [J, t, n], C as covariance -> [3, s, s, 3, t, t]."""
    along = np.einsum("jah,jpk->ahpk", a, b) / len(a)
    rows = np.einsum("ahpk,chwdkl->capwdl", along, c)
    return np.einsum("bwql,capwdl->cabdpq", along, rows)
