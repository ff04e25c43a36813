"""The definition of a view, in float64, one image and one step at a time: slow and obvious.

Every faster version (torch_views, numba_views, triton_views) must agree with this for every draw, up to rounding to
float32: of pixels by at most (2 T + 8) u sum |R| |K| (|C| x + |b|), u = 2^-24, with T weights a row, and of the mean
colour, which contrast blends with, by at most (2 S + 4) u of it. tests/support/view_bound.py derives that.
It shares the drawn numbers and the resampling matrices with them, and nothing else: here the jitter steps run one
by one over pixels, as fb.resnet.torch ran them, and the crop is cut from the whole resized image.
"""

import numpy as np

from fastres.views import colour
from fastres.views.mixing import CUTMIX, MIXUP, Mixtures
from fastres.views.plan import TestPlan, TrainPlan
from fastres.views.resample import box_matrices, matrix


def train_views(images: np.ndarray, ids: np.ndarray, plan: TrainPlan) -> np.ndarray:
    """u8 [B, S, S, 3] and their sample ids i64 [B] -> f64 [B, H, H, 3], H = plan.geometry.crop."""
    draws, boxes, erased, mixtures = plan.draws(ids), plan.boxes(ids), plan.erased(ids), plan.mixtures(ids)
    size, crop = plan.geometry.resized, plan.geometry.crop
    views = []
    for i, image in enumerate(images):
        if boxes is None:
            view = resize(image, size, plan.convention)
            view = view[draws.top[i] : draws.top[i] + crop, draws.left[i] : draws.left[i] + crop] / 255.0
        else:
            view = crop_box(image, boxes[i], crop) / 255.0
        for kind in colour.JITTER_ORDERS[draws.order[i]]:
            view = jitter(view, kind, draws.factors[i, kind])
        view = view + colour.EIGENVECTORS @ (draws.lighting[i] * colour.EIGENVALUES)
        view = (view - colour.MEAN) / colour.STD
        view = (view[:, ::-1] if draws.flip[i] else view).copy()
        top, left, bottom, right = erased[i]
        view[top:bottom, left:right] = 0
        views.append(view)
    return np.stack(views if mixtures is None else mix(views, mixtures))


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


def crop_box(image: np.ndarray, box: np.ndarray, crop: int) -> np.ndarray:
    """[S, S, 3] -> f64 [crop, crop, 3]: the part at box (top, left, height, width, pixels) resampled."""
    rows = box_matrices(len(image), crop, box[:1], box[2:3])[0]
    columns = box_matrices(len(image), crop, box[1:2], box[3:])[0]
    return np.einsum("hs,stc,wt->hwc", rows, image.astype(np.float64), columns, optimize=True)


def mix(views: list[np.ndarray], mixtures: Mixtures) -> list[np.ndarray]:
    """The views of a batch, pair by pair."""
    mixed = list(views)
    for pair, (kind, own, patch) in enumerate(zip(mixtures.kind, mixtures.own, mixtures.patch, strict=True)):
        for mine, other in ((2 * pair, 2 * pair + 1), (2 * pair + 1, 2 * pair)):
            if kind == MIXUP:
                mixed[mine] = own * views[mine] + (1 - own) * views[other]
            elif kind == CUTMIX:
                top, left, bottom, right = patch
                mixed[mine] = views[mine].copy()
                mixed[mine][top:bottom, left:right] = views[other][top:bottom, left:right]
    return mixed


def jitter(view: np.ndarray, kind: int, factor: float) -> np.ndarray:
    """One jitter step on a view in [0, 1] units: blend with black, with the mean gray, or with the gray image."""
    gray = view @ colour.GRAY
    blend_with = {
        colour.BRIGHTNESS: 0.0,
        colour.CONTRAST: gray.mean(),
        colour.SATURATION: gray[:, :, None],
    }[int(kind)]
    return factor * view + (1.0 - factor) * blend_with
