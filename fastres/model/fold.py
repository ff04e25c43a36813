"""The fast form of a network for one stage: what cannot change is folded away, what learns is shared, not copied.

With BatchNorm in eval, conv and norm are one affine map:  y = (g/s) (w * x) + (b - m g/s),  s = sqrt(var + eps).

Each convolution and the norm behind it become one unit, by what learns:
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
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from fastres.machine.compilers import CXX_REMEDY, compiler_needed
from fastres.model import cudnn, onednn
from fastres.model.network import Bottleneck, ResNet
from fastres.model.norm.function import batch_norm, can_run


@dataclass(frozen=True)
class Forms:
    """Whose kernels run what stands behind a convolution; each where it can run, torch's own elsewhere.

    onednn  forward-only convolutions on a CPU (model/onednn.py)
    cudnn   forward-only convolutions on a CUDA GPU (model/cudnn.py)
    norm    BatchNorm on batch statistics in training on a CUDA GPU (model/norm)
    """

    onednn: bool = False
    cudnn: bool = False
    norm: bool = False


PLAIN = Forms()  # torch's operators alone: for torch.compile, which picks its own
CPU_FUSED = Forms(onednn=True)  # the default; on a GPU it is PLAIN
CUDA_FUSED = Forms(cudnn=True, norm=True)  # never run on a GPU yet, so only for steps that ask: stage/fused.py


class Plain(nn.Module):
    """The original convolution and norm."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, _uncounted(norm)

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        return _finish(self.norm(self.conv(x)), relu, add)


def _uncounted(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """`norm` with the same tensors, which does not count its batches: torch launches a kernel for each count."""
    twin = copy.copy(norm)
    twin._buffers = {**norm._buffers, "num_batches_tracked": None}
    return twin


class PlainFused(Plain):
    """The same, with a norm on batch statistics in Triton's kernels."""

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        return batch_norm(self.norm, self.conv(x), relu=relu, add=add)


class Folded(nn.Module):
    """One convolution with constant weight and bias, kept in `dtype`. Under no_grad it is the fused one of `forms`."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, forms: Forms = CPU_FUSED) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        weight = conv.weight.detach().double() * scale[:, None, None, None]
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

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        scale, shift = _affine(norm)
        self.register_buffer("scale", scale.to(conv.weight.dtype)[:, None, None, None])
        self.register_buffer("bias", shift.to(conv.weight.dtype))

    def forward(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        weight = self.conv.weight * self.scale
        return _finish(functional.conv2d(x, weight, self.bias, self.conv.stride, self.conv.padding), relu, add)


def _finish(out: torch.Tensor, relu: bool, add: torch.Tensor | None) -> torch.Tensor:
    """What stands behind a unit, in place: neither convolution nor norm needs its output for its gradient."""
    if add is not None:
        out += add
    return functional.relu(out, inplace=True) if relu else out


def _affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """An eval-mode norm as y = scale x + shift, both f64 [C]."""
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _is_finite(network: nn.Module) -> bool:
    """The ReLUs of oneDNN and cuDNN would hide a NaN."""
    return bool(torch.stack([value.isfinite().all() for value in network.state_dict().values()]).all())


def _unit(conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, forms: Forms) -> nn.Module:
    if norm.training and forms.norm and can_run(norm, norm.weight.device):
        return PlainFused(conv, norm)
    if norm.training or norm.weight.requires_grad or norm.bias.requires_grad:
        return Plain(conv, norm)
    if conv.weight.requires_grad:
        return Functional(conv, norm)
    return Folded(conv, norm, dtype, forms)


class Block(nn.Module):
    """BasicBlock or Bottleneck over units: relu between them, shortcut added before the last one."""

    def __init__(self, block: nn.Module, unit: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Module]) -> None:
        super().__init__()
        count = 3 if isinstance(block, Bottleneck) else 2
        pairs = [(getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in range(1, count + 1)]
        self.units = nn.ModuleList(unit(*pair) for pair in pairs)
        self.shortcut = unit(*block.downsample) if block.downsample is not None else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for unit in self.units[:-1]:
            out = unit(out, relu=True)
        shortcut = x if self.shortcut is None else self.shortcut(x, relu=False)
        return self.units[-1](out, relu=True, add=shortcut)


class StageNetwork(nn.Module):
    """`network` as the stage trains it: same function up to rounding, same learning parameters (shared).

    Build it after freezing and after `training_mode`; it is valid as long as nothing frozen changes.
    """

    def __init__(
        self, network: ResNet, dtype: torch.dtype, *, inference: bool = False, forms: Forms = CPU_FUSED
    ) -> None:
        """`dtype` is what folded weights are kept in: the dtype the network computes in.

        inference: fold everything, whatever learns: a snapshot for evaluation.
        """
        super().__init__()
        hides_nan = forms.cudnn or (forms.onednn and network.fc.weight.device.type == "cpu")
        if hides_nan and not _is_finite(network):
            forms = Forms(norm=forms.norm)

        def unit(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
            return Folded(conv, norm, dtype, forms) if inference else _unit(conv, norm, dtype, forms)

        self.stem = unit(network.conv1, network.bn1)
        self.maxpool = network.maxpool
        blocks = [block for i in (1, 2, 3, 4) for block in getattr(network, f"layer{i}")]
        self.blocks = nn.ModuleList(Block(block, unit) for block in blocks)
        self.fc = network.fc
        learns = [any(p.requires_grad for p in part.parameters()) for part in (self.stem, *self.blocks)]
        plain = [
            any(isinstance(m, Plain) and m.norm.training for m in part.modules()) for part in (self.stem, *self.blocks)
        ]
        moving = [a or b for a, b in zip(learns, plain, strict=True)]
        self.frozen_parts = moving.index(True) if True in moving else len(moving)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training and not inference]
        self._counters = [norm.num_batches_tracked for norm in norms]  # of batches: the network's own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """f32/bf16/fp16 [B, 3, H, H] -> logits [B, classes]."""
        if self._counters:
            torch._foreach_add_(self._counters, 1)
        if self.frozen_parts:
            with torch.no_grad():
                x = self._parts(x, 0, self.frozen_parts)
        x = self._parts(x, self.frozen_parts, len(self.blocks) + 1)
        return self.fc(x.mean((2, 3)))

    def _parts(self, x: torch.Tensor, first: int, end: int) -> torch.Tensor:
        """Parts first .. end - 1 of stem and blocks."""
        for index in range(first, end):
            x = self._stem(x) if index == 0 else self.blocks[index - 1](x)
        return x

    def _stem(self, x: torch.Tensor) -> torch.Tensor:
        """Max-pool and ReLU commute, in value and gradient; a ReLU with a pass of its own has a quarter of the work
        behind the pool, one inside of another kernel comes first for nothing."""
        if isinstance(self.maxpool, nn.Identity):
            return self.stem(x, relu=True)
        if isinstance(self.stem, Folded) and self.stem.runs_fused(x):
            return self.stem.fused.pooled(x)
        if isinstance(self.stem, PlainFused):
            return self.maxpool(self.stem(x, relu=True))
        return functional.relu(self.maxpool(self.stem(x, relu=False)), inplace=True)


def compiled(form: "StageNetwork") -> Callable[[torch.Tensor], torch.Tensor]:
    """`form` through torch.compile, anew for every size of batch."""
    from torch._dynamo import config  # takes a second to load

    # Dynamo counts what it compiles of this one forward over all stages, and past its limit of 8 runs the rest eagerly
    # without an error. A stage takes two (whole and partial batches), its validation two more.
    config.recompile_limit = max(config.recompile_limit, 64)
    return torch.compile(form, dynamic=False)


def compiling(what: str) -> AbstractContextManager:
    """Around the calls of a compiled form, `what` asked for it: CompilerMissing where the machine has no compiler."""
    return compiler_needed(f"{what} needs torch.compile's compiler", f"{CXX_REMEDY}; or use --set step=eager")
