"""The fast form of a network for one stage: what cannot change is folded away, what learns is shared, not copied.

With BatchNorm in eval, conv and norm are one affine map:  y = (g/s) (w * x) + (b - m g/s),  s = sqrt(var + eps).

Each convolution and the norm behind it become one unit, by what learns: model/units.py.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional

from fastres.machine.compilers import CXX_REMEDY, compiler_needed
from fastres.model.casts import Casts
from fastres.model.network import Bottleneck, PlainBlock, ResNet
from fastres.model.units import CPU_FUSED, Folded, Forms, Plain, PlainFused, unit_of


def _is_finite(network: nn.Module) -> bool:
    """The ReLUs of oneDNN and cuDNN would hide a NaN."""
    return bool(torch.stack([value.isfinite().all() for value in network.state_dict().values()]).all())


class Block(nn.Module):
    """BasicBlock or Bottleneck over units: relu between them, shortcut added before the last one. Or PlainBlock."""

    def __init__(self, block: nn.Module, unit: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Module]) -> None:
        super().__init__()
        count = 3 if isinstance(block, Bottleneck) else 2
        pairs = [(getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in range(1, count + 1)]
        self.units = nn.ModuleList(unit(*pair) for pair in pairs)
        self.shortcut = unit(*block.downsample) if block.downsample is not None else None
        self.plain = isinstance(block, PlainBlock)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for unit in self.units[:-1]:
            out = unit(out, relu=True)
        if self.plain:
            return self.units[-1](out, relu=True)
        shortcut = x if self.shortcut is None else self.shortcut(x, relu=False)
        return self.units[-1](out, relu=True, add=shortcut)


class StageNetwork(nn.Module):
    """`network` as the stage trains it: same function up to rounding, same learning parameters (shared).

    Build it after freezing and after `training_mode`; it is valid as long as nothing frozen changes.
    """

    def __init__(
        self,
        network: ResNet,
        dtype: torch.dtype,
        *,
        inference: bool = False,
        forms: Forms = CPU_FUSED,
        channels: int = 3,
    ) -> None:
        """`dtype` is what folded weights are kept in: the dtype the network computes in.

        inference: fold everything, whatever learns: a snapshot for evaluation
        channels: of the input; those behind the third are zeros
        """
        super().__init__()
        hides_nan = forms.cudnn or (forms.onednn and network.fc.weight.device.type == "cpu")
        if hides_nan and not _is_finite(network):
            forms = Forms(norm=forms.norm, casts=forms.casts)

        def unit(conv: nn.Conv2d, norm: nn.BatchNorm2d, more: int = 0) -> nn.Module:
            return (Folded if inference else unit_of)(conv, norm, dtype, forms, more)

        self.stem = unit(network.conv1, network.bn1, channels - network.conv1.in_channels)
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
        self.counters = [norm.num_batches_tracked for norm in norms]  # of batches: the network's own
        self._casts = self._cast_together(dtype) if forms.casts and dtype != torch.float32 and not inference else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """f32/bf16/fp16 [B, channels, H, H] -> logits [B, classes]."""
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        if self.frozen_parts:
            with torch.no_grad():
                x = self._parts(x, 0, self.frozen_parts)
        if self._casts is None:
            return self.fc(self._behind(x))
        self._casts.bring()
        try:
            return self._casts.linear(self.fc, self._behind(x))
        finally:
            self._casts.release()

    def _behind(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: the parts that are not frozen, and the mean over pixels."""
        return self._parts(x, self.frozen_parts, len(self.blocks) + 1).mean((2, 3))

    def _cast_together(self, dtype: torch.dtype) -> Casts:
        units = [unit for unit in self.modules() if isinstance(unit, Plain)]
        casts = Casts([*(unit.conv for unit in units), self.fc], dtype)
        for unit in units:
            unit.casts = casts
        return casts

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
