"""One process or many: what a run must share, as an object, so that the loop is the same for both.

A `World` is one process: it has all the work and shares nothing. distributed.py has that of several.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fastres.machine.errors import FastresError
from fastres.machine.processes.signals import StopRequest


class World:
    """One process: has all the work and shares nothing."""

    rank, size, first = 0, 1, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def deal(self, count: int, batch_size: int) -> np.ndarray:
        """The ids, i64, that this process evaluates of 0 .. count - 1: whole batches of a fixed cut."""
        return np.arange(count)

    def gather_rows(self, rows: torch.Tensor, ids: np.ndarray, count: int) -> torch.Tensor:
        """Rows f32 [n, V, C] of this process's `ids` -> [count, V, C], every row from the process that has it."""
        return rows

    def from_first(self, work: Callable[[], Any]) -> Any:
        """`work` is done by the first process alone and all have its result; whatever it raises, all raise."""
        return work()

    def meet(self) -> None:
        """Wait for all processes, however long it takes: after work that not all of them have."""

    def agree(self, facts: Callable[[], dict[str, Any]]) -> None:
        """UsageError unless every process has the same `facts`, plain JSON values by name; asked for where there are
        several."""

    def same(self, network: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""

    def same_statistics(self, network: nn.Module) -> None:
        """Give every process the first one's buffers: BatchNorm's statistics, which each keeps of its own slices."""

    def stop_request(self) -> StopRequest:
        return StopRequest()

    def lost(self, error: Exception) -> FastresError | None:
        """The fault behind a RuntimeError, if it came from a process that is gone."""
        return None

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_) -> None: ...
