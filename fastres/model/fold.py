"""The fast form of a network for one stage: what cannot change is folded away, what learns is shared, not copied.

With BatchNorm in eval, conv and norm are one affine map:  y = (g/s) (w * x) + (b - m g/s),  s = sqrt(var + eps).

Each convolution and the norm behind it become one unit, by what learns:
folded      neither learns: one convolution with weight w g/s and bias b - m g/s, computed once, in the network's
            dtype. In front of everything that learns it runs forward only; behind it, it takes part in the input
            gradient and in nothing else.
functional  the convolution learns, the norm does not: weight w g/s is computed anew each step, so that the stored
            weight keeps its own scale, learning rate and decay.
plain       the norm learns, or uses batch statistics: torchvision's own two modules.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet


class Plain(nn.Module):
    """The original convolution and norm."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Folded(nn.Module):
    """One convolution with constant weight and bias, kept in `dtype`."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        weight = conv.weight.detach().double() * scale[:, None, None, None]
        self.register_buffer("weight", weight.to(dtype).to(memory_format=torch.channels_last))
        self.register_buffer("bias", shift.to(dtype))
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class Functional(nn.Module):
    """A learning convolution under a constant norm: the product of the two is taken anew at every step."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        scale, shift = _affine(norm)
        self.register_buffer("scale", scale.to(conv.weight.dtype)[:, None, None, None])
        self.register_buffer("bias", shift.to(conv.weight.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight * self.scale
        return functional.conv2d(x, weight, self.bias, self.conv.stride, self.conv.padding)


def _affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """An eval-mode norm as y = scale x + shift, both f64 [C]."""
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _unit(conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> nn.Module:
    if norm.training or norm.weight.requires_grad or norm.bias.requires_grad:
        return Plain(conv, norm)
    if conv.weight.requires_grad:
        return Functional(conv, norm)
    return Folded(conv, norm, dtype)


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
        for i, unit in enumerate(self.units):
            out = unit(out)
            if i + 1 < len(self.units):
                out = functional.relu(out, inplace=True)
        out = out + (x if self.shortcut is None else self.shortcut(x))
        return functional.relu(out, inplace=True)


class StageNetwork(nn.Module):
    """`network` as the stage trains it: same function up to rounding, same learning parameters (shared).

    Build it after freezing and after `training_mode`; it is valid as long as nothing frozen changes.
    """

    def __init__(self, network: ResNet, dtype: torch.dtype, *, inference: bool = False) -> None:
        """`dtype` is what folded weights are kept in: the dtype the network computes in.

        inference: fold everything, whatever learns: a snapshot for evaluation.
        """
        super().__init__()

        def unit(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
            return Folded(conv, norm, dtype) if inference else _unit(conv, norm, dtype)

        self.stem = unit(network.conv1, network.bn1)
        self.maxpool = network.maxpool
        blocks = [block for i in (1, 2, 3, 4) for block in getattr(network, f"layer{i}")]
        self.blocks = nn.ModuleList(Block(block, unit) for block in blocks)
        self.fc = network.fc
        learns = [any(p.requires_grad for p in part.parameters()) for part in (self.stem, *self.blocks)]
        plain = [any(isinstance(m, Plain) and m.norm.training for m in part.modules()) for part in
                 (self.stem, *self.blocks)]  # fmt: skip
        moving = [a or b for a, b in zip(learns, plain, strict=True)]
        self.frozen_parts = moving.index(True) if True in moving else len(moving)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """f32/bf16/fp16 [B, 3, H, H] -> logits [B, classes]."""
        if self.frozen_parts:
            with torch.no_grad():
                x = self._parts(x, 0, self.frozen_parts)
        x = self._parts(x, self.frozen_parts, len(self.blocks) + 1)
        return self.fc(x.mean((2, 3)))

    def _parts(self, x: torch.Tensor, first: int, end: int) -> torch.Tensor:
        """Parts first .. end - 1 of stem and blocks."""
        for index in range(first, end):
            if index == 0:
                x = self.maxpool(functional.relu(self.stem(x), inplace=True))
            else:
                x = self.blocks[index - 1](x)
        return x
