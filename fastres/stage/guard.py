"""A loss that is not finite changes no weight, and nobody waits for the device to learn of it.

The running loss of an epoch is the flag: once a NaN or an infinity has gone into it, it is never finite again. From
that step on no update is made, until the loop looks at the loss (every few steps) and ends the run.
"""

from collections.abc import Callable

import torch

Update = Callable[[torch.Tensor], None]  # takes whether the epoch's running loss is finite, bool []


def guarded_update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Update:
    """The optimiser's step, made only while the running loss is finite; chosen once, before the loop.

    A CPU reads the loss for nothing. A GPU decides by itself, inside CUDA graphs too: torch's fused SGD leaves
    everything as it is where `found_inf` is 1. fp16's scaler already skips an update whose gradients are not finite,
    which is an ordinary event there and no fault. Other optimisers (apex) get gradients of zero.
    """
    if scaler.is_enabled():
        return lambda _: (scaler.step(optimizer), scaler.update())
    if not optimizer.param_groups[0]["params"][0].is_cuda:
        return lambda good: optimizer.step() if good.item() else None
    return _flagged(optimizer) if optimizer.param_groups[0].get("fused") else _masked(optimizer)


def _flagged(optimizer: torch.optim.Optimizer) -> Update:
    """For torch's fused optimisers: the flag goes into the update's own kernel."""

    def update(good: torch.Tensor) -> None:
        optimizer.found_inf = good.logical_not().float()
        optimizer.step()

    return update


def _masked(optimizer: torch.optim.Optimizer) -> Update:
    def update(good: torch.Tensor) -> None:
        bad = good.logical_not()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(bad, 0.0)
        optimizer.step()

    return update
