"""The rate no training step can pass, for the GPUs whose limits are listed.

An estimate, not measured: each convolution alone at the GPU's arithmetic or at its memory, whichever takes longer, in
16-bit numbers; norms, views, loss and update cost nothing. Of other GPUs, and of slices of one, no floor is stated.
"""

import re
from functools import cache

import torch
from torch import nn

from fastres.model.freeze import set_trainable
from fastres.model.network import Architecture, build
from fastres.schedules.types import Stage
from fastres.views.geometry import Geometry

# What large matrix products and copies reach of the data sheets' figures: FLOP/s in bf16 or fp16, bytes/s.
LIMITS = {"H200": (790e12, 4.3e12), "H100 80GB HBM3": (790e12, 3.0e12)}
BYTES = 2  # of a number


def images_per_second(
    stage: Stage, architecture: Architecture, side: int, precision: str, gpu: str | None
) -> int | None:
    """The floor's rate for `stage`, images of `side` pixels, on the GPU that torch calls `gpu`; None where none is
    known."""
    known = None if precision == "fp32" or re.search(r"\bMIG\b", gpu or "") else _limits(gpu or "")
    if known is None:
        return None
    crop = Geometry(side, stage.upscale, stage.whole).crop
    return round(1 / seconds_per_image(architecture, stage.train, crop, *known))


def _limits(gpu: str) -> tuple[float, float] | None:
    return next((found for name, found in LIMITS.items() if re.search(rf"(?<![A-Za-z0-9]){name}\b", gpu)), None)


@cache
def seconds_per_image(
    architecture: Architecture, train: tuple[str, ...], crop: int, flop_s: float, bytes_s: float
) -> float:
    """Of every convolution, and the head, forward; of those with a gradient behind them also the products that make the
    gradients of their input and of their weight."""
    with torch.device("meta"):
        network = build(architecture).eval()
        x = torch.empty(1, 3, crop, crop)
    set_trainable(network, train)
    total = 0.0

    def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        (given,) = inputs
        macs = output.numel() * layer.weight[0].numel()
        once = max(2 * macs / flop_s, BYTES * (given.numel() + output.numel()) / bytes_s)
        total += once * (1 + given.requires_grad + layer.weight.requires_grad)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(x)
    return total


def note(known: bool, gpu: str | None) -> str:
    """One line for under a chart's title."""
    if known:
        return f"dashed: floor of the convolutions on {gpu}, estimated from layer shapes"
    if gpu is None:
        return "no floor is drawn: none is known for a CPU"
    return f"no floor is drawn where none is known: it is for 16-bit steps on {', '.join(LIMITS)}"
