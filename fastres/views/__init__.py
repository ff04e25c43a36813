"""Every input the network ever sees is a view of a source image X [S, S, 3]: y = C (R X K^T) + b.

R [H, S] and K [W, S] resample rows and columns (crop, resize and flip live there), (C, b) is a 3x4 colour matrix.
`apply` is the one entry for training views and test views, whatever the device and the implementation.
"""

import torch

from fastres.errors import UsageError
from fastres.views.plan import CENTRE_VIEW, TWELVE_VIEWS, Plan, TestPlan, TestView, TrainPlan

__all__ = ["CENTRE_VIEW", "TWELVE_VIEWS", "Plan", "TestPlan", "TestView", "TrainPlan", "apply"]

IMPLEMENTATIONS = ("auto", "torch", "reference")


def apply(images: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Turn a batch of ids into network input.

    images  u8 [M, S, S, 3]  source images on the device
    rows    i64 [B]          which of the M images each sample is
    ids     i64 [B]          sample ids, the key of their chance (unused by test plans)
    plan    TrainPlan: one view per sample; TestPlan: V views per sample, sample by sample

    Returns plan.dtype [B, 3, H, H] or [B * V, 3, H, H] in channels-last layout, on images.device.
    """
    images = images[rows]
    implementation = plan.settings.impl
    if implementation == "reference":
        out = _reference(images, ids, plan)
    elif implementation in ("auto", "torch"):
        from fastres.views import torch_views

        if isinstance(plan, TrainPlan):
            out = torch_views.train_views(images, ids, plan)
        else:
            out = torch_views.test_views(images, plan)
    else:
        raise UsageError(f"views.impl is {implementation!r}, expected one of {', '.join(IMPLEMENTATIONS)}")
    return out.permute(0, 3, 1, 2)


def _reference(images: torch.Tensor, ids: torch.Tensor, plan: Plan) -> torch.Tensor:
    from fastres.views import reference

    pixels = images.cpu().numpy()
    if isinstance(plan, TrainPlan):
        out = reference.train_views(pixels, ids.cpu().numpy(), plan)
    else:
        out = reference.test_views(pixels, plan)
    return torch.from_numpy(out).to(images.device, plan.dtype)
