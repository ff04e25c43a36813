"""Learning weights brought to the network's dtype together, and their gradients back: one operator each way.

torch.autocast casts each weight by itself at every step, and each gradient: 44 launches for a ResNet-18 that learns as
a whole, of the 323 of its step at batch 256 (counted on fake CUDA tensors). The values are the same to the bit. It is
for weights in front of norms that learn, and for the head: a functional unit's product is made and cast by itself.
"""

import torch
from torch import nn
from torch.nn import functional


class _Together(torch.autograd.Function):
    """f32 tensors -> the same in `dtype`; gradients in `dtype` -> f32."""

    @staticmethod
    def forward(ctx, dtype: torch.dtype, *weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_cast(weights, dtype))

    @staticmethod
    def backward(ctx, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        cast = iter(_cast([gradient for gradient in gradients if gradient is not None], torch.float32))
        return None, *(None if gradient is None else next(cast) for gradient in gradients)


def _cast(tensors, dtype: torch.dtype) -> list[torch.Tensor]:
    cast = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if cast:
        torch._foreach_copy_(cast, list(tensors))
    return cast


class Casts:
    """The weights of `layers` that learn, in `dtype` while a forward pass runs.

    Only for one process: DDP sends a gradient as soon as it is there, and these are all there at the end.
    """

    def __init__(self, layers: list[nn.Conv2d | nn.Linear], dtype: torch.dtype) -> None:
        self.layers, self.dtype = [layer for layer in layers if layer.weight.requires_grad], dtype
        self._now: dict[nn.Module, list[torch.Tensor]] = {}

    def bring(self) -> None:
        """Cast them, if this pass is one of training in that dtype; `release` them after it."""
        if not self.layers or not torch.is_grad_enabled() or not self._autocast():
            return
        parts = [[layer.weight] if layer.bias is None else [layer.weight, layer.bias] for layer in self.layers]
        cast = iter(_Together.apply(self.dtype, *(tensor for part in parts for tensor in part)))
        self._now = {layer: [next(cast) for _ in part] for layer, part in zip(self.layers, parts, strict=True)}

    def release(self) -> None:
        self._now = {}

    def weight(self, layer: nn.Conv2d) -> torch.Tensor:
        """Its cast weight if there is one, else its own."""
        return self._now.get(layer, [layer.weight])[0]

    def linear(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """layer(x), in its cast weights if there are any."""
        return functional.linear(x, *self._now.get(layer, [layer.weight, layer.bias]))

    def _autocast(self) -> bool:
        device = self.layers[0].weight.device.type
        return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == self.dtype
