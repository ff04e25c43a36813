"""Which parameters learn, and what the BatchNorms of the others do.

A *frozen* parameter gets no gradient and no weight decay. A BatchNorm is frozen when neither its weight nor its bias
learns; it then follows the stage's `bn` rule:

frozen        eval mode: stored statistics, untouched
recalibrated  after surgery, statistics are re-estimated once on 2,048 training views, then frozen (see `recalibrate`)
batch         statistics of the batch, stored ones keep moving: what Torch7's training() did to every layer
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn

from fastres.machine.errors import UsageError
from fastres.schedules.types import Stage


def set_trainable(network: nn.Module, patterns: tuple[str, ...]) -> list[nn.Parameter]:
    """Mark the parameters whose name matches a pattern (`fc.*`, `*`) as learning, all others as frozen.

    Returns the learning ones in the network's order. UsageError if a pattern matches nothing.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"train pattern {pattern!r} matches no parameter; they are named like {', '.join(names[:4])}, ..., "
                f"{names[-1]}"
            )
    learning = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
        parameter.grad = None
        if parameter.requires_grad:
            learning.append(parameter)
    return learning


def training_mode(network: nn.Module, stage: Stage) -> None:
    """train() for the stage: like Module.train(), but frozen BatchNorms stay in eval unless the rule is `batch`."""
    network.train()
    if stage.bn != "batch":
        for norm in batch_norms(network):
            if not (norm.weight.requires_grad or norm.bias.requires_grad):
                norm.eval()


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def recalibrate(network: nn.Module, inputs: Iterable[torch.Tensor], autocast) -> None:
    """Re-estimate every BatchNorm's statistics as the plain average over `inputs` (batches of network input).

    Layers see the batch statistics of those before them, as in training. `autocast`: a context manager factory. The
    host counts the batches: torch's cumulative average reads its counter back from the device, at every layer.
    """
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for count, x in enumerate(inputs, start=1):
        for norm in norms:
            norm.momentum = 1 / count
        with autocast():
            network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
