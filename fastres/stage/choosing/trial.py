"""How long a step of one kind takes here: timed on a real batch, and everything put back to the bit."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fastres import views
from fastres.data.batch import Batch
from fastres.machine.errors import MachineError
from fastres.stage.choosing.decide import Trial
from fastres.stage.step import EagerStep

WARM_UP_STEPS = 3  # after the first: cuDNN's search and the optimiser's state are over
TIMED_STEPS = 20


def try_out(
    network: nn.Module, kind: str, make: Callable[[str], EagerStep], batch: Batch, plan: views.TrainPlan
) -> Trial:
    """How `kind` runs. Eager ends with its error if it fails; another kind's fault is told, and nobody ends.

    network  what the step trains, as the stage's surgery left it; afterwards the same to the bit
    make     the step of a kind over `network`, fresh
    batch    of the size that the stage trains on, and `plan` its views

    MachineError where the kind leaves a device that nothing runs on any more.
    """
    device = batch.images.device
    with _put_back(network, device):
        trial = _trial(kind, make, batch, plan)
    _let_go(kind, device)
    return trial


def _trial(kind: str, make: Callable[[str], EagerStep], batch: Batch, plan: views.TrainPlan) -> Trial:
    device, started = batch.images.device, time.perf_counter()

    def steps(count: int) -> float:
        since = time.perf_counter()
        for _ in range(count):
            step(batch, plan, 0.0)  # a rate of zero: the same work, and no weight runs away on one batch
        wait_for(device)
        return time.perf_counter() - since

    try:
        step = make(kind)
        steps(1)
        cold_s = time.perf_counter() - started
        steps(WARM_UP_STEPS)
        return Trial(steps(TIMED_STEPS) / TIMED_STEPS, cold_s)
    except Exception as error:  # of torch, its compiler, Triton, or the compilers that these call
        if kind == "eager":
            raise
        return Trial(None, time.perf_counter() - started, _first_line(error))


def _first_line(error: BaseException) -> str:
    """Of what came first: a recording that is broken off by a fault ends with another one."""
    while error.__context__ is not None and not error.__suppress_context__:
        error = error.__context__
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def views_seconds(batch: Batch, plan: views.TrainPlan) -> float:
    """How long TIMED_STEPS batches of views take, once their kernel is made."""
    device = batch.images.device
    out = views.apply(batch.images, batch.rows, batch.ids, plan)
    wait_for(device)
    since = time.perf_counter()
    for _ in range(TIMED_STEPS):
        views.apply(batch.images, batch.rows, batch.ids, plan, out=out)
    wait_for(device)
    return time.perf_counter() - since


def wait_for(device: torch.device) -> None:
    """Until everything that was asked of it is done; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _put_back(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Weights, statistics and generators of chance are as they were before."""
    tensors = [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
    for parameter in network.parameters():
        parameter.grad = None


def _let_go(kind: str, device: torch.device) -> None:
    """The kind's memory goes before the next one's trial. MachineError where it took the device with it."""
    gc.collect()
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise MachineError(
            f"step {kind}: its trial left the GPU unusable ({_first_line(error)}); start the same command again with "
            "--set step=eager"
        ) from error
