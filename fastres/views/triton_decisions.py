"""Launches of triton_decide: what a batch's boxes, taps and mixtures need on the device, and where they are left."""

import math
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch

from fastres.views.boxes import crop_without_a_fit
from fastres.views.draw import WORD
from fastres.views.mixing import STEPS, cuts_below, quantiles
from fastres.views.plan import TrainPlan

MIXED_AT_ONCE = 1024  # numbers of both views by one program of mix_kernel


class Decided(NamedTuple):
    """On the device, for a batch of B. A field that the plan does not use holds one number.

    tables  first i32 [B, 2, H], weight f32 [B, 2, H, T], share f32 [B, 2, S], begin i32 [B, 2, S + 1]: down and across
    erased  i32 [B, 4]       top, left, bottom, right
    own     f32 [B]          share of its own image in each view
    pairs   i32 [B // 2, 5]  kind, and CutMix's top, left, bottom, right
    """

    tables: tuple
    erased: torch.Tensor
    own: torch.Tensor
    pairs: torch.Tensor


def decide(plan: TrainPlan, ids: torch.Tensor, key: torch.Tensor, own: torch.Tensor | None) -> Decided:
    """One launch, or none where the plan has the paper's views alone. own: receives the shares, if given."""
    s, geometry, device, count = plan.settings, plan.geometry, ids.device, len(ids)
    side, crop, box, erase = geometry.side, geometry.crop, s.crop == "resized", s.erasing > 0
    unused = constant((0.0,), device)
    tables, erased, pairs, quantile = (unused,) * 4, unused, unused, unused
    if not (box or erase or s.mixes):
        if own is not None:
            own.fill_(1)
        return Decided(tables, erased, unused, pairs)
    from fastres.views.triton_decide import decide_kernel

    taps = max(4, math.ceil(4 * side / crop))
    if box:
        shapes = ((crop,), torch.int32), ((crop, taps), torch.float32), ((side,), torch.float32)
        shapes += (((side + 1,), torch.int32),)
        tables = tuple(torch.empty(count, 2, *shape, dtype=dtype, device=device) for shape, dtype in shapes)
    if erase:
        erased = torch.empty(count, 4, dtype=torch.int32, device=device)
    if s.mixes:
        own = torch.empty(count, device=device) if own is None else own
        pairs = torch.empty(count // 2, 5, dtype=torch.int32, device=device)
        quantile = _quantiles(s.mixup, s.cutmix, device)
    elif own is None:
        own = unused
    else:
        own.fill_(1)
    laws = (_law(scale, ratio, device) for scale, ratio in ((s.scale, s.ratio), (s.erasing_scale, s.erasing_ratio)))
    crop_law, erase_law = laws
    decide_kernel[(count,)](
        ids.contiguous(), count, key,
        crop_law, constant(crop_without_a_fit(s.ratio), device), *tables,
        erase_law, int(s.erasing * WORD), erased,
        int(s.mixing * WORD), cuts_below(s), quantile, own, pairs,
        BOX=box, ERASE=erase, MIX=s.mixes, STEPS=STEPS, SIDE=side, CROP=crop, TAPS=taps,
        TALL=_power_above(crop), WIDE=_power_above(side + 1), enable_fp_fusion=True,
    )  # fmt: skip
    return Decided(tables, erased, own, pairs)


def mix(out: torch.Tensor, decided: Decided) -> None:
    """Mix the pairs of views, NHWC [B, H, H, channels] contiguous, in place."""
    from fastres.views.triton_decide import mix_kernel

    count, crop, _, channels = out.shape
    if count > 1:
        grid = count // 2, math.ceil(crop * crop * channels / MIXED_AT_ONCE)
        mix_kernel[grid](
            out, decided.own, decided.pairs, CROP=crop, CHANNELS=channels, BLOCK=MIXED_AT_ONCE, enable_fp_fusion=True
        )


@cache  # a recorded graph reads them by their addresses
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """f64 on the device, made once."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def _law(scale: tuple[float, ...], ratio: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return constant((*scale, *map(math.log, ratio)), device)


@lru_cache(maxsize=16)
def _quantiles(mixup: float, cutmix: float, device: torch.device) -> torch.Tensor:
    rows = [quantiles(alpha) if alpha else np.ones(STEPS + 1) for alpha in (mixup, cutmix)]
    return torch.from_numpy(np.stack(rows)).to(device)


def _power_above(size: int) -> int:
    return 1 << (size - 1).bit_length()
