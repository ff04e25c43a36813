"""A convolution and the BatchNorm behind it as one unit of a stage's network, by what learns.

folded      neither learns: one convolution with weight w g/s and bias b - m g/s, computed once, in the network's
            dtype. In front of everything that learns it runs forward only; behind it, it takes part in the input
            gradient and in nothing else.
functional  the convolution learns, the norm does not: weight w g/s is computed anew each step, so that the stored
            weight keeps its own scale, learning rate and decay.
plain       the norm learns, or uses batch statistics: torchvision's own two modules. How many batches the norms
            have seen is counted for all of them at once.

A unit is called with what stands behind it, unit(x, relu=..., add=...) = relu?(norm(conv(x)) + add?), so that one
kernel can do it all where there is one (`Forms`): a folded convolution in front of everything that learns, and a norm
on batch statistics. `add` may be written over.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from fastres.model import cudnn, onednn
from fastres.model.casts import Casts
from fastres.model.norm.function import batch_norm, can_run


@dataclass(frozen=True)
class Forms:
    """Whose kernels run what stands behind a convolution; each where it can run, torch's own elsewhere.

    onednn  forward-only convolutions on a CPU (model/onednn.py)
    cudnn   forward-only convolutions on a CUDA GPU (model/cudnn.py)
    norm    BatchNorm on batch statistics in training on a CUDA GPU (model/norm)
    casts   weights that learn are cast together (model/casts.py)
    """

    onednn: bool = False
    cudnn: bool = False
    norm: bool = False
    casts: bool = False


PLAIN = Forms()  # torch's operators alone: for torch.compile, which picks its own
CPU_FUSED = Forms(onednn=True, casts=True)  # the default; on a GPU its convolutions are torch's
CUDA_FUSED = Forms(cudnn=True, norm=True, casts=True)  # never run on a GPU: for steps that ask, stage/fused.py


class Plain(nn.Module):
    """The original convolution and norm. `casts` has its weight, where it is given later."""

    casts: Casts | None = None

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, more: int = 0) -> None:
        """`more`: channels of zeros behind those that `conv` reads (stage/padded.py)."""
        super().__init__()
        self.conv, self.norm, self.more = conv, _uncounted(norm), more

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        return _finish(self.norm(self.convolved(x)), relu, add)

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight if self.casts is None else self.casts.weight(self.conv)
        return functional.conv2d(x, _padded(weight, self.more), None, self.conv.stride, self.conv.padding)


def _uncounted(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """`norm` with the same tensors, which does not count its batches: torch launches a kernel for each count."""
    twin = copy.copy(norm)
    twin._buffers = {**norm._buffers, "num_batches_tracked": None}
    return twin


class PlainFused(Plain):
    """The same, with a norm on batch statistics in Triton's kernels."""

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        return batch_norm(self.norm, self.convolved(x), relu=relu, add=add)


class Folded(nn.Module):
    """One convolution with constant weight and bias, kept in `dtype`. Under no_grad it is the fused one of `forms`."""

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, forms: Forms = CPU_FUSED, more: int = 0
    ) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        weight = _padded(conv.weight.detach().double() * scale[:, None, None, None], more)
        self.register_buffer("weight", weight.to(dtype).to(memory_format=torch.channels_last))
        self.register_buffer("bias", shift.to(dtype))
        self.stride, self.padding = conv.stride, conv.padding
        layer = self.weight, self.bias, self.stride, self.padding
        self.fused = onednn.fused_convolution(*layer) if forms.onednn else None
        if forms.cudnn and self.fused is None:
            self.fused = cudnn.fused_convolution(*layer)

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        if self.runs_fused(x):
            return self.fused(x, relu=relu, add=add)
        return _finish(functional.conv2d(x, self.weight, self.bias, self.stride, self.padding), relu, add)

    def runs_fused(self, x: torch.Tensor) -> bool:
        return self.fused is not None and not torch.is_grad_enabled() and x.dtype == self.weight.dtype


class Functional(nn.Module):
    """A learning convolution under a constant norm: the product of the two is taken anew at every step."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, more: int = 0) -> None:
        super().__init__()
        self.conv, self.more = conv, more
        scale, shift = _affine(norm)
        self.register_buffer("scale", scale.to(conv.weight.dtype)[:, None, None, None])
        self.register_buffer("bias", shift.to(conv.weight.dtype))

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        weight = _padded(self.conv.weight * self.scale, self.more)
        return _finish(functional.conv2d(x, weight, self.bias, self.conv.stride, self.conv.padding), relu, add)


def _padded(weight: torch.Tensor, more: int) -> torch.Tensor:
    """A convolution's weight [F, C, k, k] with zeros for `more` channels."""
    if not more:
        return weight
    return functional.pad(weight, (0, 0, 0, 0, 0, more)).contiguous(memory_format=torch.channels_last)


def _finish(out: torch.Tensor, relu: bool, add: torch.Tensor | None) -> torch.Tensor:
    """What stands behind a unit, in place: neither convolution nor norm needs its output for its gradient."""
    if add is not None:
        out += add
    return functional.relu(out, inplace=True) if relu else out


def _affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """An eval-mode norm as y = scale x + shift, both f64 [C]."""
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def unit_of(conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, forms: Forms, more: int = 0) -> nn.Module:
    """The unit that a stage makes of the two, as they are frozen now; `more` as in Plain."""
    if norm.training and forms.norm and can_run(norm, norm.weight.device):
        return PlainFused(conv, norm, more)
    if norm.training or norm.weight.requires_grad or norm.bias.requires_grad:
        return Plain(conv, norm, more)
    if conv.weight.requires_grad:
        return Functional(conv, norm, more)
    return Folded(conv, norm, dtype, forms, more)
