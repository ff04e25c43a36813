"""When checkpoints are saved, and by whom: a thread of its own, so that training waits for a copy, not for a disk."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch

from fastres.machine.console import say
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.processes.world import World
from fastres.train.checkpoint import Position, save_checkpoint

# The default. A kill costs a minute at most, and the minute 0.1 %: a ResNet-18 with its momentum, 90 MB, was copied in
# 0.01 to 0.05 s here (and written, beside training, in 0.2 to 0.4 s).
SECONDS_BETWEEN = 60.0


class Interval(Protocol):
    """Whether a checkpoint is due inside an epoch, beside those at every epoch's end."""

    def due(self, step: int) -> bool:
        """After the epoch's step number `step`, from 1."""

    def saved(self) -> None:
        """One has just been saved."""


class EverySteps:
    """After each `steps` steps of an epoch; 0: never inside one."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def due(self, step: int) -> bool:
        return self.steps > 0 and step % self.steps == 0

    def saved(self) -> None: ...


class EverySeconds:
    """Once `seconds` have passed since the last."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.saved()

    def due(self, step: int) -> bool:
        return time.monotonic() >= self._next

    def saved(self) -> None:
        self._next = time.monotonic() + self.seconds


def interval(steps: int | None) -> Interval:
    """What --checkpoint-every means; None is its default. UsageError below 0."""
    if steps is None:
        return EverySeconds(SECONDS_BETWEEN)
    if steps < 0:
        raise UsageError(f"--checkpoint-every {steps}: expected 0 (at epochs' ends only) or more steps")
    return EverySteps(steps)


class CheckpointWriter:
    """Writes checkpoints into a folder, one at a time, off the calling thread.

    A write that fails is said, and whoever trains goes on: the checkpoints before it are still there.
    """

    def __init__(self, folder: Path, written: Callable[[Position], None] = lambda _: None) -> None:
        """`written` is called in the writing thread when one is on the disk."""
        self.folder, self._written = folder, written
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None

    def ready(self) -> bool:
        """Whether this is a good time for a checkpoint inside an epoch."""
        return True

    def save(self, position: Position, state: dict, error: float | None = None) -> None:
        """Copy `state` to the host now and write it later; waits for the write before. See save_checkpoint."""
        self.wait()
        self._pending = self._thread.submit(self._write, position, on_host(state), error)

    def _write(self, position: Position, state: dict, error: float | None) -> MachineError | None:
        try:
            save_checkpoint(self.folder, position, state, error)
        except MachineError as fault:
            say(f"checkpoint not written: {fault}; the run goes on, and the checkpoints before it are kept")
            return fault
        self._written(position)
        return None

    def wait(self) -> str | None:
        """Until nothing is being written; what went wrong with the last write, if anything did."""
        fault = self._pending.result() if self._pending else None
        return str(fault) if fault else None

    def close(self) -> None:
        """Wait for the last write and end the thread; closing twice is fine."""
        self._thread.shutdown()


class FirstsWriter(CheckpointWriter):
    """Of the first of several processes: the others wait for it with their next step, and not for long. A checkpoint
    inside an epoch is left out rather than waiting for a slow disk to take the one before it."""

    def ready(self) -> bool:
        return self._pending is None or self._pending.done()


class NoWriter:
    """Of the other processes."""

    def ready(self) -> bool:
        return False

    def save(self, position: Position, state: dict, error: float | None = None) -> None: ...

    def wait(self) -> str | None: ...

    def close(self) -> None: ...


def writer_for(world: World, folder: Path, written: Callable[[Position], None]) -> CheckpointWriter | NoWriter:
    """Who writes a run's checkpoints into `folder`: the first process, beside training. See CheckpointWriter."""
    if not world.first:
        return NoWriter()
    return (CheckpointWriter if world.size == 1 else FirstsWriter)(folder, written)


def on_host(state):
    """A copy of nested dicts, lists and tuples with every tensor copied to the CPU: f32 stays f32, strides stay.

    From a GPU all copies are asked for at once, into pinned memory, and waited for once: each alone would be waited for
    by itself. They are ordered before whatever the GPU is asked to do next.
    """
    waited_for: set[torch.device] = set()
    copied = _copied(state, waited_for)
    for device in waited_for:
        torch.cuda.current_stream(device).synchronize()
    return copied


def _copied(state, from_gpus: set[torch.device]):
    """on_host, before it has waited for `from_gpus`, which is filled."""
    if isinstance(state, torch.Tensor) and state.is_cuda:
        from_gpus.add(state.device)
        return torch.empty_like(state, device="cpu", pin_memory=True).copy_(state.detach(), non_blocking=True)
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copied(value, from_gpus) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copied(value, from_gpus) for value in state)
    return state
