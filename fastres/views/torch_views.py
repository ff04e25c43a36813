"""Views as batched matrix products: y = R (C X + b) K^T, on any device torch runs on.

The colour matrix is applied to the source pixels, before resampling: rows of R and K sum to 1, so it commutes, and
when upscaling by 4 there are 16 times fewer pixels to colour. Chance is drawn on the host (a few kilobytes a batch).
"""

import numpy as np
import torch

from fastres.views import colour
from fastres.views.mixing import CUTMIX, MIXUP, Mixtures
from fastres.views.plan import TestPlan, TrainPlan
from fastres.views.resample import box_matrices, matrix


def train_views(images: torch.Tensor, ids: torch.Tensor, plan: TrainPlan) -> torch.Tensor:
    """u8 [B, S, S, 3] and sample ids i64 [B] -> plan.dtype [B, H, H, 3], on images.device."""
    ids = ids.cpu().numpy()
    draws, erased, mixtures = plan.draws(ids), plan.erased(ids), plan.mixtures(ids)
    crop, device = plan.geometry.crop, images.device
    rows, columns = _matrices(ids, draws, plan, device)  # [B, H, S] each
    pixels = images.float()  # [B, S, S, 3]
    batch, side = pixels.shape[:2]
    # mean colour of the view, (mean R)^T X (mean K), without making the view
    mean_row = torch.bmm(rows.mean(1, keepdim=True), pixels.view(batch, side, side * 3))
    mean_rgb = torch.bmm(columns.mean(1, keepdim=True), mean_row.view(batch, side, 3)).squeeze(1)
    c, b = colour.compose(mean_rgb.cpu().double().numpy(), draws.factors, draws.order, draws.lighting)
    coloured = torch.baddbmm(
        _on(b, device)[:, None, :], pixels.view(batch, side * side, 3), _on(c, device).transpose(1, 2)
    )
    tall = torch.bmm(rows, coloured.view(batch, side, side * 3))  # [B, H, S * 3]
    views = _columns(tall.view(batch, crop, side, 3), columns)
    if erased.any():
        views = views.masked_fill(_inside(erased, crop, device)[..., None], 0)
    return (views if mixtures is None else _mixed(views, mixtures)).to(plan.dtype)


def _matrices(ids: np.ndarray, draws, plan: TrainPlan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """R and K of each view, f32 [B, H, S]."""
    side, crop, boxes = plan.geometry.side, plan.geometry.crop, plan.boxes(ids)
    if boxes is None:
        resize = _on(matrix(side, plan.geometry.resized, plan.convention), device)  # [resized, S]
        places = (torch.from_numpy(start[:, None] + np.arange(crop)).to(device) for start in (draws.top, draws.left))
        rows, columns = (resize[place] for place in places)
    else:
        rows, columns = (_on(box_matrices(side, crop, boxes[:, i], boxes[:, i + 2]), device) for i in (0, 1))
    flip = torch.from_numpy(draws.flip).to(device)
    return rows, torch.where(flip[:, None, None], columns.flip(1), columns)


def _inside(boxes: np.ndarray, crop: int, device: torch.device) -> torch.Tensor:
    """bool [n, H, H]: what lies in each box, i64 [n, 4] (top, left, bottom, right)."""
    at = np.arange(crop)
    down, across = ((at >= boxes[:, i, None]) & (at < boxes[:, i + 2, None]) for i in (0, 1))
    return torch.from_numpy(down[:, :, None] & across[:, None, :]).to(device)


def _mixed(views: torch.Tensor, mixtures: Mixtures) -> torch.Tensor:
    """f32 [B, H, H, 3], pair by pair."""
    pairs, crop = len(mixtures.kind), views.shape[1]
    mine = views[: 2 * pairs].reshape(pairs, 2, crop, crop, 3)
    other = mine.flip(1)
    own = _on(np.where(mixtures.kind == MIXUP, mixtures.own, 1.0), views.device)[:, None, None, None, None]
    cut = _inside(mixtures.patch * (mixtures.kind == CUTMIX)[:, None], crop, views.device)[:, None, :, :, None]
    mixed = torch.where(cut, other, own * mine + (1 - own) * other)
    return torch.cat([mixed.flatten(0, 1), views[2 * pairs :]])


def test_views(images: torch.Tensor, plan: TestPlan) -> torch.Tensor:
    """u8 [B, S, S, 3] -> plan.dtype [B * V, H, H, 3] contiguous, on images.device: all views of image 0 first."""
    side, crop, device = plan.geometry.side, plan.geometry.crop, images.device
    batch = len(images)
    c, b = (_on(array, device) for array in colour.plain())
    coloured = torch.addmm(b, images.float().view(-1, 3), c.T).view(batch, side, side * 3)
    out = torch.empty(batch, len(plan.views), crop, crop, 3, dtype=plan.dtype, device=device)
    for v, view in enumerate(plan.views):
        if view.whole:
            rows = columns = matrix(side, crop, plan.convention)
        else:
            resize = matrix(side, plan.geometry.resized, plan.convention)
            top, left = view.offset(plan.geometry)
            rows, columns = resize[top : top + crop], resize[left : left + crop]
        columns = columns[::-1].copy() if view.mirrored else columns
        tall = torch.matmul(_on(rows, device), coloured).view(batch, crop, side, 3)
        out[:, v] = _columns(tall, _on(columns, device).expand(batch, crop, side))
    return out.view(batch * len(plan.views), crop, crop, 3)


def _columns(tall: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """[B, H, S, 3] and K [B, W, S] -> [B, H, W, 3], not contiguous: one product an image, not one a row."""
    batch, height, side, _ = tall.shape
    turned = tall.permute(0, 2, 1, 3).reshape(batch, side, height * 3)
    return torch.bmm(columns, turned).view(batch, columns.shape[1], height, 3).permute(0, 2, 1, 3)


def _on(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float32, device=device)
