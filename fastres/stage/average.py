"""A running average of the weights over a stage's steps, which is what gets validated and kept.

After step t (from 1), for every weight and BatchNorm statistic w:

    average = d average + (1 - d) w,   d = min(ema, (1 + t) / (10 + t))

so that the first steps of a stage do not weigh as much as all others: the average starts as the network is when the
stage begins. At the stage's end the network becomes the average.
"""

import copy
from typing import Protocol

import torch
from torch import nn


class Average(Protocol):
    """What the loop needs: `network` is judged, `update` follows every step, `hand_over` ends the stage."""

    network: nn.Module

    def update(self) -> None: ...

    def hand_over(self) -> None: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


def weight_average(network: nn.Module, ema: float) -> Average:
    """`network` itself where `ema` is 0."""
    return RunningAverage(network, ema) if ema else NoAverage(network)


class NoAverage:
    """The network as the last step left it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def update(self) -> None: ...

    def hand_over(self) -> None: ...

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None: ...


class RunningAverage:
    """A second network on the same device, float32 like the first. Reads nothing back; two or three kernels a step.

    torch's AveragedModel would give other bits: its first update copies the weights instead of averaging them, and of
    BatchNorm's buffers it averages none, or all, the counter of batches too.
    """

    def __init__(self, network: nn.Module, ema: float) -> None:
        self.ema, self.steps = ema, 0
        self._source = network
        self.network = copy.deepcopy(network).requires_grad_(False)
        # what is frozen is the same in both and stays so; statistics may move wherever the mode says so
        learning = {name for name, p in network.named_parameters() if p.requires_grad}
        learning |= {name for name, buffer in network.named_buffers() if buffer.is_floating_point()}
        ours, theirs = self.network.state_dict(), network.state_dict()
        self._pairs = [(ours[name], theirs[name]) for name in ours if name in learning]

    @torch.no_grad()
    def update(self) -> None:
        """Take note of the weights after a step."""
        self.steps += 1
        decay = min(self.ema, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([a for a, _ in self._pairs], [w for _, w in self._pairs], 1.0 - decay)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Make the network the average, in place. Its counters of batches stay its own."""
        for average, weight in self._pairs:
            weight.copy_(average)

    def state_dict(self) -> dict:
        """Without the average itself: a checkpoint's network is the one that was judged."""
        return {"steps": self.steps, "learning": self._source.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """After making this object from the checkpoint's network, which is the average."""
        self.steps = state["steps"]
        self._source.load_state_dict(state["learning"])
