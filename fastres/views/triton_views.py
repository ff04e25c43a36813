"""Views on a GPU: one launch per batch, chance and mean colour included, pixels read in place by row. Where a plan
has boxes or mixtures, a launch before it decides (triton_decisions.py), and one behind it mixes.

A CUDA graph that holds the launch can be replayed for any epoch: seed, stage and epoch are read from a small tensor
on the device, which `set_key` fills. Outside of a capture train_views does that itself.

Runs on CPU tensors too where TRITON_INTERPRET=1 is set before Triton is imported (slow; for tests).
"""

import os
from functools import lru_cache

import numpy as np
import torch

from fastres.machine.errors import MachineError, UsageError
from fastres.views import colour, tables
from fastres.views.draw import WORD
from fastres.views.plan import TestPlan, TrainPlan
from fastres.views.triton_blocks import blocks_of
from fastres.views.triton_decisions import constant, decide, mix

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_keys: dict[torch.device, tuple[torch.Tensor, list]] = {}


def train_views(
    images: torch.Tensor,
    rows: torch.Tensor,
    ids: torch.Tensor,
    plan: TrainPlan,
    out: torch.Tensor,
    own: torch.Tensor | None = None,
) -> None:
    """u8 [M, S, S, 3], i64 [B], i64 [B] -> into out, NHWC [B, H, H, channels] contiguous, f16, bf16 or f32; own f32 [B]
    receives each view's share of its own image. Where a pair is blended in f16 or bf16, both views are rounded first.
    """
    geometry, settings, device = plan.geometry, plan.settings, images.device
    first, weight, begin, taps = _enlarged(geometry.side, geometry.resized, plan.convention, device)
    share = _shares(geometry.side, geometry.resized, geometry.crop, plan.convention, device)
    decided = decide(plan, ids, _key(plan, device), own)
    if settings.crop == "resized":
        first, weight, share, begin = decided.tables
        taps = weight.shape[-1]
    widths = (settings.brightness, settings.contrast, settings.saturation, settings.lighting)
    chance = _key(plan, device), constant(widths, device), int(settings.flip * WORD), share
    orders, constants = _orders(device), _constants(device)
    tables = first, weight, begin, constants, *chance, orders, constants, constants, taps, decided.erased
    _launch(plan, 1, images, rows, ids, out, *tables)
    if settings.mixes:
        mix(out, decided)


def test_views(images: torch.Tensor, rows: torch.Tensor, plan: TestPlan, out: torch.Tensor) -> None:
    """u8 [M, S, S, 3], i64 [B] -> into out, NHWC [B * V, H, H, channels] contiguous, image by image."""
    first, weight, begin, views, affine = _fixed(plan.geometry, plan.convention, plan.views, images.device)
    constants = _constants(images.device)
    unused = (constants,) * 2 + (0,) + (constants,) * 2
    tables = first, weight, begin, constants, *unused, views, affine, 1, begin
    _launch(plan, len(plan.views), images, rows, rows, out, *tables)


def check_device(device: torch.device) -> None:
    """MachineError where Triton cannot run on it."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise MachineError(f"views.impl triton needs a GPU, the images are on {device}: use auto")


def set_key(plan: TrainPlan, device: torch.device) -> torch.Tensor:
    """Put the plan's seed, stage and epoch where launches on this device read them: i64 [3].

    Call it before replaying a captured graph; it is ordered like any work on the current stream.
    """
    if device not in _keys:
        _keys[device] = torch.zeros(3, dtype=torch.int64, device=device), []
    kept, current = _keys[device]
    wanted = [(plan.seed + WORD * WORD // 2) % (WORD * WORD) - WORD * WORD // 2, plan.stage, plan.epoch]
    if wanted != current:
        key = torch.tensor(wanted)
        # from pinned memory the host does not wait for what is queued before it
        kept.copy_(key.pin_memory() if device.type == "cuda" else key, non_blocking=True)
        current[:] = wanted
    return kept


def _key(plan: TrainPlan, device: torch.device) -> torch.Tensor:
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    return _keys[device][0] if capturing and device in _keys else set_key(plan, device)


def _launch(plan, views: int, images, rows, ids, out, *arguments) -> None:
    if out.dtype not in DTYPES:
        raise UsageError(f"views.impl triton makes float16, bfloat16 and float32, not {out.dtype}: use torch")
    from fastres.views import triton_kernels

    geometry, weight, training = plan.geometry, arguments[1], isinstance(plan, TrainPlan)
    crop, line = geometry.crop, 1 << (3 * geometry.side - 1).bit_length()
    blocks = blocks_of(plan)
    triton_kernels.views_kernel[len(out), -(-crop // blocks.rows)](
        images,
        rows.contiguous(),
        ids.contiguous(),
        out,
        len(images),
        *arguments,
        ROOM=geometry.room,
        VIEWS=views,
        TRAIN=training,
        MARCH=geometry.resized > geometry.side and weight.shape[-1] == 4,  # it reads four taps
        SIDE=geometry.side,
        CROP=crop,
        CHANNELS=plan.channels,
        TAPS=weight.shape[-1],
        ROWS=blocks.rows,
        BLOCK=blocks.columns,
        LINE=line,
        BOX=training and plan.settings.crop == "resized",
        ERASE=training and plan.settings.erasing > 0,
        num_warps=blocks.warps,
        enable_fp_fusion=True,
    )


def _begin(first: np.ndarray, side: int) -> np.ndarray:
    """i32 [S + 1]: the first row of the table whose taps begin at this source row or below."""
    return np.searchsorted(first, np.arange(side + 1)).astype(np.int32)


@lru_cache(maxsize=16)
def _enlarged(side: int, size: int, convention: str, device: torch.device) -> tuple:
    """First i32 [R], weight f32 [R, T], begin i32 [S + 1] on the device, and T."""
    first, weight = tables.band(side, size, convention)
    parts = (first.astype(np.int32), weight, _begin(first, side))
    return *(torch.from_numpy(part).to(device) for part in parts), weight.shape[1]


@lru_cache(maxsize=16)
def _fixed(geometry, convention: str, test_views: tuple, device: torch.device) -> tuple:
    """The two tables of test views, enlarged and whole, one after the other, and what to do for each view.

    first i32 [R], weight f32 [R, T], begin i32 [2 (S + 1)], affine f32 [12] (C | b, row by row),
    views i32 [V, 6]: top, left, mirrored, number of taps, row where its table starts, and where its `begin` starts
    """
    side, size, crop = geometry.side, geometry.resized, geometry.crop
    own = tables.band(side, size, convention)[1].shape[1], tables.band(side, crop, convention)[1].shape[1]
    both = [tables.band(side, n, convention, max(own)) for n in (size, crop)]
    if own[0] == 1:  # padding the identity would move taps of the last rows away from the sample they copy
        both[0] = np.arange(side), np.pad(np.ones((side, 1), np.float32), ((0, 0), (0, max(own) - 1)))
    views = []
    for view in test_views:
        top, left = (0, 0) if view.whole else view.offset(geometry)
        views.append((top, left, view.mirrored, own[view.whole], size * view.whole, (side + 1) * view.whole))
    # with a common width every table is that wide, but only the identity may be read narrower
    views = [(*v[:3], v[3] if v[3] == 1 else max(own), *v[4:]) for v in views]
    c, b = colour.plain()
    parts = (
        np.concatenate([first for first, _ in both]).astype(np.int32),
        np.concatenate([weight for _, weight in both]),
        np.concatenate([_begin(first, side) for first, _ in both]),
        np.array(views, np.int32),
        np.concatenate([c, b[:, None]], axis=1).astype(np.float32),
    )
    return tuple(torch.from_numpy(part).to(device) for part in parts)


@lru_cache(maxsize=16)
def _shares(side: int, size: int, crop: int, convention: str, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(tables.shares(side, size, crop, convention)).to(device)


@lru_cache(maxsize=4)
def _constants(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(tables.CONSTANTS).to(device)


@lru_cache(maxsize=4)
def _orders(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(colour.JITTER_ORDERS.astype(np.int32)).to(device)
