"""The definition of a view, in float64, one image and one step at a time: slow and obvious.

Every faster version (torch_views, numba_views, triton_views) must agree with this for every draw, up to rounding.
It shares the drawn numbers and the resampling matrices with them, and nothing else: here the jitter steps run one
by one over pixels, as fb.resnet.torch ran them, and the crop is cut from the whole resized image.
"""

import numpy as np

from fastres.views import colour
from fastres.views.plan import TestPlan, TrainPlan
from fastres.views.resample import matrix


def train_views(images: np.ndarray, ids: np.ndarray, plan: TrainPlan) -> np.ndarray:
    """u8 [B, S, S, 3] and their sample ids i64 [B] -> f64 [B, H, H, 3], H = plan.geometry.crop."""
    draws = plan.draws(ids)
    size, crop = plan.geometry.resized, plan.geometry.crop
    views = []
    for i, image in enumerate(images):
        view = resize(image, size, plan.convention)
        view = view[draws.top[i] : draws.top[i] + crop, draws.left[i] : draws.left[i] + crop] / 255.0
        for kind in colour.JITTER_ORDERS[draws.order[i]]:
            view = jitter(view, kind, draws.factors[i, kind])
        view = view + colour.EIGENVECTORS @ (draws.lighting[i] * colour.EIGENVALUES)
        view = (view - colour.MEAN) / colour.STD
        views.append(view[:, ::-1] if draws.flip[i] else view)
    return np.ascontiguousarray(np.stack(views))


def test_views(images: np.ndarray, plan: TestPlan) -> np.ndarray:
    """u8 [B, S, S, 3] -> f64 [B * V, H, H, 3]: the V views of image 0, then those of image 1, and so on."""
    size, crop = plan.geometry.resized, plan.geometry.crop
    views = []
    for image in images:
        for how in plan.views:
            if how.whole:
                view = resize(image, crop, plan.convention)
            else:
                top, left = how.offset(plan.geometry)
                view = resize(image, size, plan.convention)[top : top + crop, left : left + crop]
            view = (view / 255.0 - colour.MEAN) / colour.STD
            views.append(view[:, ::-1] if how.mirrored else view)
    return np.ascontiguousarray(np.stack(views))


def resize(image: np.ndarray, size: int, convention: str) -> np.ndarray:
    """[S, S, 3] -> f64 [size, size, 3], neither rounded nor clamped."""
    rows = matrix(image.shape[0], size, convention)
    columns = matrix(image.shape[1], size, convention)
    return np.einsum("hs,stc,wt->hwc", rows, image.astype(np.float64), columns, optimize=True)


def jitter(view: np.ndarray, kind: int, factor: float) -> np.ndarray:
    """One jitter step on a view in [0, 1] units: blend with black, with the mean gray, or with the gray image."""
    gray = view @ colour.GRAY
    blend_with = {
        colour.BRIGHTNESS: 0.0,
        colour.CONTRAST: gray.mean(),
        colour.SATURATION: gray[:, :, None],
    }[int(kind)]
    return factor * view + (1.0 - factor) * blend_with
