"""BatchNorm over the global batch (`--sync-bn`), for processes that each hold a slice of it.

Two sums are exchanged forward and one backward, over M values of a channel in all processes together:

    mean = sum(x) / M        var = sum((x - mean)^2) / M        x^ = (x - mean) / sqrt(var + eps)        y = g x^ + b
    dx = g / sqrt(var + eps) * (dy - sum(dy) / M - x^ sum(dy x^) / M)

A slice may be of any size, also empty. The gradients of g and b are the slice's own: they are added up like all others.

torch's SyncBatchNorm is not used. It needs GPUs, so that CPUs would test another one; its forward pass waits for the
device at every norm; of an empty slice it sends zeros of another dtype than the others send.
"""

from collections.abc import Callable

import torch
from torch import nn

Sum = Callable[[torch.Tensor], torch.Tensor]  # over all processes, in place


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps: float, total: Sum):
        """x [B, C, H, W] of any float dtype -> y of the same, mean f32 [C], var f32 [C], count f32 []."""
        wide = x if x.dtype == torch.float64 else x.float()
        sums = torch.cat([wide.sum((0, 2, 3)), wide.new_full((1,), x.numel() // x.shape[1])])
        total(sums)
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = wide - mean[:, None, None]
        var = total(centred.square().sum((0, 2, 3))) / count
        inverse = torch.rsqrt(var + eps)
        normal = centred * inverse[:, None, None]
        ctx.save_for_backward(normal, weight, inverse, count)
        ctx.total, ctx.dtype = total, x.dtype
        ctx.mark_non_differentiable(mean, var, count)
        y = normal * weight[:, None, None] + bias[:, None, None]
        return y.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx, dy, *_):
        normal, weight, inverse, count = ctx.saved_tensors
        dy = dy.to(normal.dtype)
        own = torch.stack([dy.sum((0, 2, 3)), (dy * normal).sum((0, 2, 3))])
        everyones = ctx.total(own.clone())[:, :, None, None] / count
        dx = (weight * inverse)[:, None, None] * (dy - everyones[0] - normal * everyones[1])
        return dx.to(ctx.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None


class GlobalBatchNorm(nn.Module):
    """A training BatchNorm2d over every process's slice, with the parameters and statistics of `norm` itself. Batches
    are counted by the network's form (model/fold.py)."""

    def __init__(self, norm: nn.BatchNorm2d, total: Sum) -> None:
        super().__init__()
        self.norm, self.total = norm, total

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        y, mean, var, count = _Normalise.apply(x, norm.weight, norm.bias, norm.eps, self.total)
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * (count / (count - 1)), norm.momentum)
        return y


def synchronise(form: nn.Module, total: Sum) -> nn.Module:
    """Put every BatchNorm of `form` that uses batch statistics over the global batch, in place.

    `form` must hold the network's norms as its own attributes, as model/fold.py does: the network keeps them as they
    are.
    """
    for module in list(form.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and child.training:
                setattr(module, name, GlobalBatchNorm(child, total))
    return form
