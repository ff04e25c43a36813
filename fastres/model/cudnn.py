"""Forward-only layers on a CUDA GPU: cuDNN's convolution with bias, sum and ReLU in one pass.

torch runs each of these as a pass of its own over memory. `aten::cudnn_convolution_relu` and
`aten::cudnn_convolution_add_relu` are what TorchScript's freezing emits; nothing promises that they stay. They know no
gradients: only a frozen prefix, and evaluation, may use them. Nothing here has ever run on a GPU.

They are used where four doubts are settled.
NaN       cuDNN's ReLU may make 0 of NaN, as oneDNN's does. A network with weights that are not finite is not to be run
          this way (model/fold.py), and nothing is in float16, where finite weights overflow.
memory    torch hands the memory of the output, as it was left, to the sum that `cudnn_convolution_relu` does not want,
          times 0: a NaN that lay there could show. Every layer's first use is tried in memory full of NaN.
engines   cuDNN may have none for a layer's sizes, the stem's three channels for one. That layer then runs plainly.
the same  torch asks for any engine here, also for one whose sums differ from run to run. Where a run must repeat, all
          of it is plain.
"""

from functools import lru_cache

import torch
from torch.nn import functional

DEVICE = "cuda"
DTYPES = (torch.float32, torch.bfloat16)
GARBAGE = 2.0**-4  # of the largest output: what no rounding explains


class FusedConvolution:
    """relu(conv(x, weight) + bias + add?) in one pass, if the first try of each size of input equals the plain layers;
    with `relu` false the plain ones, for which cuDNN's operators have no form."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, stride: tuple, padding: tuple) -> None:
        """weight [O, I, k, k], channels-last, and bias [O]: on the GPU, of the same dtype."""
        self.weight, self.bias, self._window = weight, bias, (list(stride), list(padding), [1, 1], 1)
        self._equal: dict[tuple, bool] = {}  # by size of input, and whether something is added

    def __call__(self, x: torch.Tensor, *, relu: bool, add: torch.Tensor | None = None) -> torch.Tensor:
        """x [B, I, H, H] of the weight's dtype, channels-last. `add` stays as it is."""
        return self.in_one(x, add) if relu and self._holds(x, add) else self.plain(x, relu, add)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """maxpool(relu(convolution(x))), 3x3, stride 2, padding 1: [B, 3, H, H] -> [B, C, H', H'].

        The ReLU comes first, since inside of the convolution it costs no pass; as a pass of its own it comes second,
        where it has a quarter of the work.
        """
        if self._holds(x, None):
            return functional.max_pool2d(self.in_one(x, None), 3, 2, 1)
        return functional.max_pool2d(self.plain(x, False, None), 3, 2, 1).relu_()

    def in_one(self, x: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
        if add is None:
            return torch.ops.aten.cudnn_convolution_relu(x, self.weight, self.bias, *self._window)
        return torch.ops.aten.cudnn_convolution_add_relu(x, self.weight, add, 1.0, self.bias, *self._window)

    def plain(self, x: torch.Tensor, relu: bool, add: torch.Tensor | None) -> torch.Tensor:
        out = functional.conv2d(x, self.weight, self.bias, *self._window)
        if add is not None:
            out += add
        return out.relu_() if relu else out

    def _holds(self, x: torch.Tensor, add: torch.Tensor | None) -> bool:
        """Whether this size of input may go in one pass. The first time reads the device; a capture, which must not,
        leaves a size that it does not know yet plain."""
        key = x.shape, add is None
        if key not in self._equal:
            if x.is_cuda and torch.cuda.is_current_stream_capturing():
                return False
            self._equal[key] = self._is_plain(x, add)
        return self._equal[key]

    def _is_plain(self, x: torch.Tensor, add: torch.Tensor | None) -> bool:
        wanted = self.plain(x, True, add)
        try:
            self.in_one(x, add)  # cuDNN's search may run every engine on the output of a first call
            torch.full_like(wanted, torch.nan)  # freed at once: the next output of this size lies there
            made = self.in_one(x, add)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
        return bool(made.sub_(wanted).abs_().max() <= GARBAGE * wanted.max())  # a NaN is not


def fused_convolution(weight: torch.Tensor, bias: torch.Tensor, stride, padding) -> FusedConvolution | None:
    """None where cuDNN's operators do not run, or may not: see this file's doubts."""
    must_repeat = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if must_repeat or not torch.backends.cudnn.enabled or not usable(weight.dtype, weight.device):
        return None
    return FusedConvolution(weight, bias, stride, padding)


@lru_cache
@torch.no_grad()
def usable(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch, on this device, has the operators for `dtype` and they do what they should. Waits for it."""
    if dtype not in DTYPES or device.type != DEVICE:
        return False
    # eighths and small sums: exact in bfloat16, so that no rounding hides a wrong answer
    weight = (torch.arange(8 * 8 * 9) % 5 - 2).view(8, 8, 3, 3).to(device, dtype) / 8
    x = (torch.arange(8 * 5 * 5) % 3 - 1).view(1, 8, 5, 5).to(device, dtype)
    bias, add = (torch.arange(8).to(device, dtype) - 4) / 8, torch.ones(1, 8, 3, 3, dtype=dtype, device=device)
    weight, x, add = (t.contiguous(memory_format=torch.channels_last) for t in (weight, x, add))
    truth = functional.conv2d(x.double().cpu(), weight.double().cpu(), bias.double().cpu(), 2, 1)
    convolution = FusedConvolution(weight, bias, (2, 2), (1, 1))
    try:
        alone, summed = convolution.in_one(x, None), convolution.in_one(x, add)
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(alone.double().cpu(), truth.relu()) and torch.equal(summed.double().cpu(), (truth + 1).relu())
