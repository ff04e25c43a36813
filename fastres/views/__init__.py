"""Every input the network ever sees is a view of a source image X [S, S, 3]: y = C (R X K^T) + b.

R [H, S] and K [W, S] resample rows and columns (crop, resize and flip live there), (C, b) is a 3x4 colour matrix.
`apply` is the one entry for training views and test views, whatever the device and the implementation.
"""

import torch

from fastres.errors import MachineError
from fastres.views.plan import CENTRE_VIEW, TWELVE_VIEWS, Plan, TestPlan, TestView, TrainPlan

__all__ = ["CENTRE_VIEW", "TWELVE_VIEWS", "Plan", "TestPlan", "TestView", "TrainPlan", "apply", "chosen"]


def apply(
    images: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, plan: Plan, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Turn a batch of ids into network input.

    images  u8 [M, S, S, 3]  source images on the device, contiguous
    rows    i64 [B]          which of the M images each sample is
    ids     i64 [B]          sample ids, the key of their chance (unused by test plans)
    plan    TrainPlan: one view per sample; TestPlan: V views per sample, sample by sample
    out     what an earlier call of this shape returned, to be written over: nothing is allocated then

    Returns plan.dtype [B, C, H, H] or [B * V, C, H, H] in channels-last layout, on images.device; C = plan.channels.
    Raises IndexError where a row is not among the images (on a GPU: undefined), ValueError for an unfit `out`.
    """
    count = len(rows) * (1 if isinstance(plan, TrainPlan) else len(plan.views))
    crop = plan.geometry.crop
    shape = (count, plan.channels, crop, crop)
    if out is None:
        out = torch.empty(count, crop, crop, plan.channels, dtype=plan.dtype, device=images.device).permute(0, 3, 1, 2)
    nhwc = out.permute(0, 2, 3, 1)
    if out.shape != shape or out.dtype != plan.dtype or out.device != images.device or not nhwc.is_contiguous():
        raise ValueError(
            f"out is {out.dtype} {tuple(out.shape)} on {out.device}, strides {out.stride()}; expected {plan.dtype} "
            f"{shape} on {images.device}, channels-last"
        )
    if count:
        _IMPLEMENTATIONS[chosen(plan, images.device)](images.contiguous(), rows, ids, plan, nhwc)
    return out


def chosen(plan: Plan, device: torch.device) -> str:
    """Which implementation makes this plan on this device: what views.impl says, or the fastest there is."""
    if plan.settings.impl != "auto":
        return plan.settings.impl
    if device.type == "cpu" and plan.dtype in (torch.float32, torch.bfloat16):
        return "numba"
    return "triton" if device.type == "cuda" else "torch"


def _numba(images, rows, ids, plan, nhwc) -> None:
    from fastres.views import numba_views

    if images.device.type != "cpu":
        raise MachineError(f"views.impl numba works on the CPU, the images are on {images.device}: use auto")
    if isinstance(plan, TrainPlan):
        numba_views.train_views(images, rows, ids, plan, nhwc)
    else:
        numba_views.test_views(images, rows, plan, nhwc)


def _triton(images, rows, ids, plan, nhwc) -> None:
    try:
        from fastres.views import triton_views
    except ImportError as error:
        raise MachineError(f"views.impl triton needs Triton ({error}): pip install triton, or use torch") from error
    if isinstance(plan, TrainPlan):
        triton_views.train_views(images, rows, ids, plan, nhwc)
    else:
        triton_views.test_views(images, rows, plan, nhwc)


def _torch(images, rows, ids, plan, nhwc) -> None:
    from fastres.views import torch_views

    if isinstance(plan, TrainPlan):
        made = torch_views.train_views(images[rows], ids, plan)
    else:
        made = torch_views.test_views(images[rows], plan)
    nhwc[..., :3] = made
    nhwc[..., 3:] = 0


def _reference(images, rows, ids, plan, nhwc) -> None:
    from fastres.views import reference

    pixels = images[rows].cpu().numpy()
    if isinstance(plan, TrainPlan):
        made = reference.train_views(pixels, ids.cpu().numpy(), plan)
    else:
        made = reference.test_views(pixels, plan)
    nhwc[..., :3] = torch.from_numpy(made).to(nhwc)
    nhwc[..., 3:] = 0


# the names are schedule_types.VIEW_IMPLS, less auto
_IMPLEMENTATIONS = {"numba": _numba, "triton": _triton, "torch": _torch, "reference": _reference}
