"""Views as batched matrix products: y = R (C X + b) K^T, on any device torch runs on.

The colour matrix is applied to the source pixels, before resampling: rows of R and K sum to 1, so it commutes, and
when upscaling by 4 there are 16 times fewer pixels to colour. Chance is drawn on the host (a few kilobytes a batch).
"""

import numpy as np
import torch

from fastres.views import colour
from fastres.views.plan import TestPlan, TrainPlan
from fastres.views.resample import matrix


def train_views(images: torch.Tensor, ids: torch.Tensor, plan: TrainPlan) -> torch.Tensor:
    """u8 [B, S, S, 3] and sample ids i64 [B] -> plan.dtype [B, H, H, 3], on images.device."""
    draws = plan.draws(ids.cpu().numpy())
    side, crop, device = plan.geometry.side, plan.geometry.crop, images.device
    resize = _on(matrix(side, plan.geometry.resized, plan.convention), device)  # [resized, S]
    steps = np.arange(crop)
    columns = draws.left[:, None] + np.where(draws.flip[:, None], steps[::-1], steps)
    rows = resize[torch.from_numpy(draws.top[:, None] + steps).to(device)]  # [B, H, S]
    columns = resize[torch.from_numpy(columns).to(device)]  # [B, H, S]

    pixels = images.float()  # [B, S, S, 3]
    batch = len(pixels)
    # mean colour of the view, (mean R)^T X (mean K), without making the view
    mean_row = torch.bmm(rows.mean(1, keepdim=True), pixels.view(batch, side, side * 3))
    mean_rgb = torch.bmm(columns.mean(1, keepdim=True), mean_row.view(batch, side, 3)).squeeze(1)
    c, b = colour.compose(mean_rgb.cpu().double().numpy(), draws.factors, draws.order, draws.lighting)
    coloured = torch.baddbmm(
        _on(b, device)[:, None, :], pixels.view(batch, side * side, 3), _on(c, device).transpose(1, 2)
    )
    tall = torch.bmm(rows, coloured.view(batch, side, side * 3))  # [B, H, S * 3]
    return _columns(tall.view(batch, crop, side, 3), columns).to(plan.dtype)


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
