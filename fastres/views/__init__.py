"""Every input the network ever sees is a view of a source image X [S, S, 3]: y = C (R X K^T) + b.

R [H, S] and K [W, S] resample rows and columns (crop, resize and flip live there), (C, b) is a 3x4 colour matrix.
`apply` is the one entry for training views and test views, whatever the device and the implementation.
"""

import torch

from fastres.machine.compilers import C_REMEDY, CompilerMissing, compiler_needed
from fastres.machine.console import say
from fastres.machine.errors import MachineError
from fastres.views.draw import WORD
from fastres.views.plan import CENTRE_VIEW, TWELVE_VIEWS, Plan, TestPlan, TestView, TrainPlan, twelve_views

_triton_works = True  # false from the first time on that `auto` chose it and its launch could not be compiled

__all__ = [
    "CENTRE_VIEW",
    "TWELVE_VIEWS",
    "Plan",
    "TestPlan",
    "TestView",
    "TrainPlan",
    "apply",
    "chosen",
    "twelve_views",
]


def apply(
    images: torch.Tensor,
    rows: torch.Tensor,
    ids: torch.Tensor,
    plan: Plan,
    out: torch.Tensor | None = None,
    own: torch.Tensor | None = None,
) -> torch.Tensor:
    """Turn a batch of ids into network input.

    images  u8 [M, S, S, 3]  source images on the device, contiguous
    rows    i64 [B]          which of the M images each sample is
    ids     i64 [B]          sample ids, the key of their chance (unused by test plans)
    plan    TrainPlan: one view per sample; TestPlan: V views per sample, sample by sample
    out     what an earlier call of this shape returned, to be written over: nothing is allocated then
    own     f32 [B], receives the share of each training view that is its own image: 1 unless the plan mixes neighbours
            (mixing.py), which then are samples 0 and 1, 2 and 3, ... of this batch

    Returns plan.dtype [B, C, H, H] or [B * V, C, H, H] in channels-last layout, on images.device; C = plan.channels.
    Raises IndexError where a row is not among the images or an id is no word of 32 bits, ValueError for an unfit `out`
    or as many ids as there are not rows. Triton on a GPU, where nothing is read back, makes NaN of such a sample: its
    loss ends the run, its scores the evaluation, and neither changes a weight. CompilerMissing where Triton finds no C
    compiler for its launches; where `auto` chose Triton, torch makes the views instead, from then on, and a warning
    says so.
    """
    if rows.shape != ids.shape:
        raise ValueError(f"{tuple(rows.shape)} rows with {tuple(ids.shape)} ids, expected one id for each row")
    count = len(rows) * (1 if isinstance(plan, TrainPlan) else len(plan.views))
    crop = plan.geometry.crop
    shape = (count, plan.channels, crop, crop)
    if out is None:
        out = torch.empty(count, crop, crop, plan.channels, dtype=plan.dtype, device=images.device).permute(0, 3, 1, 2)
    nhwc = out.permute(0, 2, 3, 1)
    if own is not None:
        _check_own(own, rows, plan, images.device)
    if out.shape != shape or out.dtype != plan.dtype or out.device != images.device or not nhwc.is_contiguous():
        raise ValueError(
            f"out is {out.dtype} {tuple(out.shape)} on {out.device}, strides {out.stride()}; expected {plan.dtype} "
            f"{shape} on {images.device}, channels-last"
        )
    if count:
        arguments = images.contiguous(), rows, ids, plan, nhwc, own
        try:
            _IMPLEMENTATIONS[chosen(plan, images.device)](*arguments)
        except CompilerMissing as error:
            if plan.settings.impl != "auto":
                raise
            _leave_triton(error)
            _torch(*arguments)
    return out


def _leave_triton(error: CompilerMissing) -> None:
    """Every later choice of this process is torch: the compiler would be looked for at each batch."""
    global _triton_works
    _triton_works = False
    say(f"warning: {error}; torch makes the views now, which takes longer")


def _check_own(own: torch.Tensor, rows: torch.Tensor, plan: Plan, device: torch.device) -> None:
    fit = own.dtype == torch.float32 and own.shape == rows.shape and own.is_contiguous() and own.device == device
    if not fit or not isinstance(plan, TrainPlan):
        raise ValueError(
            f"own is {own.dtype} {tuple(own.shape)} on {own.device}, expected float32 {tuple(rows.shape)} on {device}, "
            "contiguous, with a plan of training views"
        )


def _put_shares(ids: torch.Tensor, plan: TrainPlan, own: torch.Tensor | None) -> None:
    if own is None:
        return
    own.fill_(1)
    if (mixtures := plan.mixtures(ids.cpu().numpy())) is not None:
        shares = torch.from_numpy(mixtures.own.repeat(2))
        own[: len(shares)].copy_(shares)


def _check(images, rows, ids, plan) -> None:
    """IndexError for what PyTorch would take from the end, or a kernel from other memory; waits for the device."""
    for what, values, known, where in (
        ("rows", rows, len(images), f"the {len(images)} images"),
        ("ids", ids if isinstance(plan, TrainPlan) else rows[:0], WORD, "0 to 2^32 - 1"),
    ):
        bad = int(((values < 0) | (values >= known)).sum())
        if bad:
            raise IndexError(f"{bad} of {len(rows)} {what} are outside {where}")


def chosen(plan: Plan, device: torch.device) -> str:
    """Which implementation makes this plan on this device: what views.impl says, or the fastest there is."""
    if plan.settings.impl != "auto":
        return plan.settings.impl
    if device.type == "cpu" and plan.dtype in (torch.float32, torch.bfloat16):
        return "numba"
    return "triton" if device.type == "cuda" and _triton_works else "torch"


def _numba(images, rows, ids, plan, nhwc, own) -> None:
    from fastres.views import numba_views

    if images.device.type != "cpu":
        raise MachineError(f"views.impl numba works on the CPU, the images are on {images.device}: use auto")
    _check(images, rows, ids, plan)
    if isinstance(plan, TrainPlan):
        numba_views.train_views(images, rows, ids, plan, nhwc, own)
    else:
        numba_views.test_views(images, rows, plan, nhwc)


def _triton(images, rows, ids, plan, nhwc, own) -> None:
    try:
        from fastres.views import triton_views
    except ImportError as error:
        raise CompilerMissing(f"views.impl triton needs Triton ({error}): pip install triton, or use torch") from error
    triton_views.check_device(images.device)
    if images.device.type == "cpu":
        _check(images, rows, ids, plan)
    with compiler_needed("views.impl triton needs a C compiler and Python.h", f"{C_REMEDY}; or use torch"):
        if isinstance(plan, TrainPlan):
            triton_views.train_views(images, rows, ids, plan, nhwc, own)
        else:
            triton_views.test_views(images, rows, plan, nhwc)


def _torch(images, rows, ids, plan, nhwc, own) -> None:
    from fastres.views import torch_views

    _check(images, rows, ids, plan)
    if isinstance(plan, TrainPlan):
        made = torch_views.train_views(images[rows], ids, plan)
        _put_shares(ids, plan, own)
    else:
        made = torch_views.test_views(images[rows], plan)
    nhwc[..., :3] = made
    nhwc[..., 3:] = 0


def _reference(images, rows, ids, plan, nhwc, own) -> None:
    from fastres.views import reference

    _check(images, rows, ids, plan)
    pixels = images[rows].cpu().numpy()
    if isinstance(plan, TrainPlan):
        made = reference.train_views(pixels, ids.cpu().numpy(), plan)
        _put_shares(ids, plan, own)
    else:
        made = reference.test_views(pixels, plan)
    nhwc[..., :3] = torch.from_numpy(made).to(nhwc)
    nhwc[..., 3:] = 0


# the names are schedules/view_settings.py's VIEW_IMPLS, less auto
_IMPLEMENTATIONS = {"numba": _numba, "triton": _triton, "torch": _torch, "reference": _reference}
