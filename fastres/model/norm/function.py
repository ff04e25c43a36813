"""A training BatchNorm2d with add and ReLU behind it, as one autograd function over the Triton kernels.

Forward, three launches: statistics in two stages, then one pass y = relu?(norm(x) + add?). Backward, three more: sums
in two stages, then one pass for dx. ReLU and add have no pass of their own. What is kept for the backward pass is x
and, where something was added, y, which the layer behind keeps anyway; without an add the ReLU's cut is computed anew
from x. Nothing is read back from the device and nothing is allocated on the host, so a CUDA graph can hold all of it.

Runs on CPU tensors too where TRITON_INTERPRET=1 is set before Triton is imported (slow; for tests). Nothing here has
run on a GPU yet.
"""

import os
from importlib.util import find_spec

import torch
from torch import nn
from torch.autograd.function import once_differentiable

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Elements of a tile, its most channels (a line of memory in bfloat16), warps; shares of all rows at most, over all
# channels; channels a program joins. From arithmetic (16 elements a thread and tile, some 4 programs a multiprocessor
# of an H200), not yet tuned on a device.
TILE, WIDE = 4096, 64
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
SHARES, JOINED = 512, 8


def can_run(norm: nn.Module, device: torch.device) -> bool:
    """Whether `norm`, in training mode on `device`, may be run by `batch_norm`."""
    return has_triton(device) and fits(norm)


def has_triton(device: torch.device) -> bool:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return (device.type == "cuda" or interpreted) and find_spec("triton") is not None


def fits(norm: nn.Module) -> bool:
    """A BatchNorm2d with weight, bias and statistics in float32, whose momentum is a number."""
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    plain = all(t is not None and t.dtype == torch.float32 for t in tensors)
    return type(norm) is nn.BatchNorm2d and plain and norm.momentum is not None


def batch_norm(norm: nn.BatchNorm2d, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
    """relu?(norm(x) + add?), on the statistics of the batch; moves the norm's own as torch does, and counts no
    batch: the caller does.

    x [B, C, H, W] in float32, bfloat16 or float16, channels-last (copied, if it is not), `add` like it -> y like x.
    ValueError for one value a channel, as torch's.
    """
    if x.numel() < 2 * x.shape[1]:
        raise ValueError(f"expected more than 1 value per channel when training, got input size {x.shape}")
    running = norm.running_mean, norm.running_var
    return _BatchNorm.apply(x, add, norm.weight, norm.bias, *running, norm.momentum, norm.eps, relu)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, add, weight, bias, running_mean, running_var, momentum: float, eps: float, relu: bool):
        from fastres.model.norm import kernels

        x, add = _nhwc(x), None if add is None else _nhwc(add)
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        shares, share, tile = _shares(rows, channels)
        partial, moments = _sums(x, shares), _sums(x)
        at = weight, bias, moments[0], moments[1]
        kernels.moments_kernel[shares, -(-channels // tile["WIDE"])](x, partial, rows, channels, share, **tile)
        kernels.statistics_kernel[1, -(-channels // JOINED)](
            partial,
            *at[2:],
            running_mean,
            running_var,
            rows,
            channels,
            share,
            shares,
            eps,
            momentum,
            **_joining(shares),
        )
        y = torch.empty_like(x)
        kernels.normalise_kernel[-(-rows // tile["SLOTS"]), -(-channels // tile["WIDE"])](
            x, x if add is None else add, y, *at, rows, channels, ADD=add is not None, RELU=relu, **tile
        )
        ctx.cut = "" if not relu else "x" if add is None else "y"
        ctx.added = None if add is None else add.dtype
        ctx.save_for_backward(x, y if ctx.cut == "y" else None, *at)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        from fastres.model.norm import kernels

        x, y, *at = ctx.saved_tensors
        dy = _nhwc(dy)
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        shares, share, tile = _shares(rows, channels)
        partial, sums = _sums(x, shares), _sums(x)
        masked = torch.empty_like(dy) if ctx.cut == "y" else dy
        kernels.gradient_sums_kernel[shares, -(-channels // tile["WIDE"])](
            dy, x, x if y is None else y, masked, partial, *at, rows, channels, share, CUT=ctx.cut, **tile
        )
        kernels.join_kernel[1, -(-channels // JOINED)](partial, *sums, channels, shares, **_joining(shares))
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            kernels.input_gradient_kernel[-(-rows // tile["SLOTS"]), -(-channels // tile["WIDE"])](
                masked, x, dx, *at, *sums, rows, channels, CUT=ctx.cut, **tile
            )
        d_add = masked.to(ctx.added) if ctx.added is not None and ctx.needs_input_grad[1] else None
        return dx, d_add, sums[1], sums[0], None, None, None, None, None


def _nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _sums(x: torch.Tensor, *shares: int) -> torch.Tensor:
    """f32 [2, *shares, C] on the device of x, unset."""
    return torch.empty((2, *shares, x.shape[1]), dtype=torch.float32, device=x.device)


def _shares(rows: int, channels: int) -> tuple[int, int, dict]:
    """How many shares the rows go into, how many rows each has (the last: fewer), and the tile that walks them."""
    wide = min(WIDE, 1 << (channels - 1).bit_length())
    slots = TILE // wide
    most = max(1, SHARES // -(-channels // wide))
    share = -(-rows // (most * slots)) * slots
    return -(-rows // share), share, {"SLOTS": slots, "WIDE": wide, **OPTIONS}


def _joining(shares: int) -> dict:
    return {"SLOTS": 1 << (shares - 1).bit_length(), "WIDE": JOINED, **OPTIONS}
