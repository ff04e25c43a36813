"""What the fused norm computes, said slowly: training-mode BatchNorm, a residual sum, a ReLU, and their gradients.

Over the M = B H W values of a channel:

    mean = sum(x) / M        var = sum((x - mean)^2) / M        x^ = (x - mean) / sqrt(var + eps)
    y = relu?(g x^ + b + add?)

    dy' = dy where y > 0, else 0 (dy itself without a ReLU)        d add = dy'
    db = sum(dy')        dg = sum(dy' x^)        dx = g / sqrt(var + eps) (dy' - db / M - x^ dg / M)

    running_mean <- (1 - momentum) running_mean + momentum mean
    running_var  <- (1 - momentum) running_var  + momentum var M / (M - 1)
"""

import torch


def normalise(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    *,
    relu: bool,
    add: torch.Tensor | None = None,
) -> torch.Tensor:
    """y f64 of x [B, C, H, W], weight [C], bias [C] and add like x, of any float dtype; autograd gives gradients."""
    x = x.double()
    mean, var = moments(x)
    y = (x - _wide(mean)) / (_wide(var) + eps).sqrt() * _wide(weight.double()) + _wide(bias.double())
    y = y if add is None else y + add.double()
    return y.relu() if relu else y


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance (over M, not M - 1) of each channel: f64 [C], f64 [C]."""
    x = x.double()
    mean = x.mean((0, 2, 3))
    return mean, (x - _wide(mean)).square().mean((0, 2, 3))


def moved(
    running_mean: torch.Tensor, running_var: torch.Tensor, x: torch.Tensor, momentum: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The running statistics after the batch x, f64 [C] each."""
    mean, var = moments(x)
    count = x.numel() // x.shape[1]
    return (
        (1 - momentum) * running_mean.double() + momentum * mean,
        (1 - momentum) * running_var.double() + momentum * var * count / (count - 1),
    )


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]
