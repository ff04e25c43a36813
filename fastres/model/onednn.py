"""Forward-only layers on a CPU: oneDNN's convolution with bias, sum and ReLU in one pass, and an integer max-pool.

torch runs each of these as a pass of its own over memory. The operators are the ones torch.compile's CPU backend emits
(`torch.ops.mkldnn`); they are not public, so `usable` tries them out once, and what is here must equal the plain layers
to rounding (tests/model/test_onednn.py). They know no gradients: only a frozen prefix, and evaluation, may use them.

One difference: a ReLU of oneDNN makes 0 of NaN. A network with weights that are not finite is not to be run this way.
"""

from functools import lru_cache

import torch
from torch.nn import functional

_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
CACHE_BYTES = 1 << 20  # of a core's second-level cache, which the stem's output may fill


class FusedConvolution:
    """relu?(conv(x, weight) + bias + add?), with the weight laid out for oneDNN once for each size of input.

    Laid out for no size in particular, oneDNN guesses one, and where its convolution then wants another layout it
    reorders the weight in every call: ten times the time of the convolution itself on small images (AVX2).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, stride: tuple, padding: tuple) -> None:
        """weight [O, I, k, k] and bias [O] on the CPU, both float32 or both bfloat16."""
        self.bias, self.stride, self._window = bias, stride, (list(padding), list(stride), [1, 1], 1)
        self._weight = weight
        self._laid_out: dict[torch.Size, torch.Tensor] = {}

    def __call__(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        """x [B, I, H, H] of the weight's dtype, channels-last. `add` is written over: it becomes the result."""
        layer = (self._weight_for(x.shape), self.bias, *self._window)
        if add is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *layer, "relu" if relu else "none", [], "")
        after = ("add", 1.0, "relu" if relu else None, [], None)
        return torch.ops.mkldnn._convolution_pointwise_.binary(add, x, *layer, *after)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """maxpool(relu(convolution(x))), 3x3, stride 2, padding 1: [B, 3, H, H] -> [B, C, H', H'], channels-last.

        A few images at a time, so that the stem's output, the largest of the network, is pooled while it is in the
        cache and needs no fresh memory.
        """
        parts = [max_pool_of_positive(self(part, relu=True)) for part in x.split(self._images_at_a_time(x))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _images_at_a_time(self, x: torch.Tensor) -> int:
        outputs = len(self.bias) * x.shape[2] * x.shape[3] / (self.stride[0] * self.stride[1])
        return max(1, int(CACHE_BYTES * torch.get_num_threads() / (outputs * x.element_size())))

    def _weight_for(self, shape: torch.Size) -> torch.Tensor:
        if shape not in self._laid_out:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self._laid_out[shape] = reorder(self._weight, *self._window, list(shape))
        return self._laid_out[shape]


def fused_convolution(weight: torch.Tensor, bias: torch.Tensor, stride, padding) -> FusedConvolution | None:
    """None where oneDNN's operators do not run: another device or dtype, another build of torch."""
    if weight.device.type != "cpu" or not usable(weight.dtype):
        return None
    return FusedConvolution(weight, bias, stride, padding)


@lru_cache
@torch.no_grad()
def usable(dtype: torch.dtype) -> bool:
    """Whether this torch, as built and on this CPU, has the operators for `dtype` and they do what they should."""
    if dtype not in _INTEGERS or not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    # eighths and small sums: exact in bfloat16, so that no rounding hides a wrong answer
    weight = (torch.arange(2 * 2 * 9) % 5 - 2).view(2, 2, 3, 3).to(dtype) / 8
    x = (torch.arange(2 * 5 * 5) % 7 - 3).view(1, 2, 5, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    bias, add = torch.tensor([0.5, -0.25]).to(dtype), torch.ones(1, 2, 3, 3, dtype=dtype)
    add = add.contiguous(memory_format=torch.channels_last)
    truth = functional.conv2d(x.double(), weight.double(), bias.double(), 2, 1)
    try:
        convolution = FusedConvolution(weight, bias, (2, 2), (1, 1))
        alone, summed = convolution(x, relu=True), convolution(x, relu=True, add=add.clone())
        bare = convolution(x, relu=False)
    except (AttributeError, RuntimeError):
        return False
    wanted = truth.relu(), (truth + 1).relu(), truth
    return all(torch.equal(a.double(), b) for a, b in zip((alone, summed, bare), wanted, strict=True))


def max_pool_of_positive(x: torch.Tensor) -> torch.Tensor:
    """3x3 max-pool of stride 2 and padding 1 of what a ReLU left: f32 or bf16 [B, C, H, W] -> [B, C, ceil(H/2), ...].

    Floats that are not negative are ordered as the integers of the same bits, whose maximum costs a CPU a fraction of
    the floats' (max_pool2d also writes indices that nobody reads here). Even sides; others go torch's way.
    """
    if x.shape[2] % 2 or x.shape[3] % 2:
        return functional.max_pool2d(x, 3, 2, 1)
    bits = x.view(_INTEGERS[x.dtype])
    rows = torch.maximum(bits[:, :, 0::2], bits[:, :, 1::2])
    torch.maximum(rows[:, :, 1:], bits[:, :, 1:-1:2], out=rows[:, :, 1:])
    out = torch.maximum(rows[..., 0::2], rows[..., 1::2])
    torch.maximum(out[..., 1:], rows[..., 1:-1:2], out=out[..., 1:])
    return out.view(x.dtype)
