"""Several processes, started by torchrun: gloo on CPUs, NCCL on GPUs, one machine or many.

    torchrun --nproc-per-node 4 -m fastres.train --schedule paper

Each process takes its slice of the same global batches and its share of the same evaluation batches, so neither the
views nor a score depend on how many there are.
"""

import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastres.data.engines import Split
from fastres.data.resident import Batch
from fastres.engine.noticeboard import Noticeboard
from fastres.engine.precision import choose_device
from fastres.engine.saving import CheckpointWriter, FirstsWriter, NoWriter
from fastres.engine.signals import SharedStop, StopRequest
from fastres.engine.world import World
from fastres.errors import Diverged, FastresError, MachineError, Preempted, UsageError
from fastres.track import console

# A collective that takes longer means a peer that hangs. With torchrun's own 30 s between asking and killing, all
# processes are gone within a minute. Whatever may rightly take longer waits at the noticeboard instead.
PATIENCE_S = 20
WORDS_OF_LOSS = ("gloo/", "NCCL", "pair closure", "Connection closed by peer")
TORCHRUN_SETS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Processes(World):
    """Several processes, started by torchrun."""

    def __init__(self, device: torch.device) -> None:
        """Meet the others; MachineError where torch.distributed cannot."""
        super().__init__(device)
        import torch.distributed as dist

        self._dist = dist
        self._timeout = timedelta(seconds=PATIENCE_S)
        try:
            store, self.rank, self.size = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
            # tensors on the CPU go through gloo also where gradients go through NCCL
            backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(
                backend, store=dist.PrefixStore("group", store), rank=self.rank, world_size=self.size,
                timeout=self._timeout,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise MachineError(
                f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not meet the others at "
                f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} ({str(error).splitlines()[0]}); check "
                "torchrun's rendezvous options and the network"
            ) from error
        self.first = self.rank == 0
        self.board = Noticeboard(dist.PrefixStore("board", store), self.rank, self.size, PATIENCE_S)
        if not self.first:
            console.mute()

    def batches(self, data: Split, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Slices of one batch may differ by an image, and of the last one may be empty."""
        wholes = [min(batch_size, len(ids) - start) for start in range(0, len(ids), batch_size)]
        if not wholes:
            return
        bounds = [slice_of(whole, self.rank, self.size) for whole in wholes]
        mine = [ids[k * batch_size + a : k * batch_size + b] for k, (a, b) in enumerate(bounds)]
        # every whole batch gives a slice of this size, and the last one's is no larger: the engine's own way of cutting
        size = slice_of(batch_size, self.rank, self.size)
        for batch, whole in zip(data.batches(np.concatenate(mine), size[1] - size[0]), wholes):
            yield batch._replace(whole=whole)
        if len(mine[-1]) == 0:
            none = data.labels[:0]
            images = torch.empty(0, 1, 1, 3, dtype=torch.uint8, device=data.device)
            yield Batch(images=images, rows=none, labels=none, ids=none, whole=wholes[-1])

    def deal(self, count: int, batch_size: int) -> np.ndarray:
        """Batch k goes to process k mod size, whole: what a batch is made of never depends on the process count."""
        ids = np.arange(count)
        return ids[ids // batch_size % self.size == self.rank]

    def gather_rows(self, rows: torch.Tensor, ids: np.ndarray, count: int) -> torch.Tensor:
        """Waits for the slowest, then adds up what each has, with zeros where it has nothing."""
        self.meet()
        shape = torch.tensor(rows.shape[1:] if len(ids) else (0, 0))
        self._talk(lambda: self._dist.all_reduce(shape, op=self._dist.ReduceOp.MAX))
        together = torch.zeros(count, *shape.tolist())
        scored = torch.zeros(count, dtype=torch.int32)
        if len(ids):
            together[ids], scored[ids] = rows, 1
        self._talk(lambda: [self._dist.all_reduce(tensor) for tensor in (together, scored)])
        assert bool((scored == 1).all()), "every image must be scored exactly once"
        return together

    def from_first(self, work: Callable[[], Any]) -> Any:
        """The result must be plain JSON values."""
        return self.board.from_first(work)

    def meet(self) -> None:
        self.board.meet()

    def agree(self, what: str, value: str) -> None:
        firsts = self.from_first(lambda: value)
        if firsts != value:
            raise MachineError(
                f"process {self.rank} on {socket.gethostname()} finds {what} {value}, the first process {firsts}; all "
                "must see the same packed data, weights and run folder"
            )
        self.meet()

    def same(self, network: nn.Module) -> None:
        self._broadcast([tensor.data for tensor in (*network.parameters(), *network.buffers())])

    def same_statistics(self, network: nn.Module) -> None:
        self._broadcast(list(network.buffers()))

    def _broadcast(self, tensors: list[torch.Tensor]) -> None:
        """In place, one message for each dtype."""
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            group = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            self._talk(lambda flat=flat: self._dist.broadcast(flat, src=0))
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group])):
                tensor.copy_(part.view_as(tensor))

    def step_class(self, kind: type, sync_bn: bool) -> type:
        from fastres.engine.shared_step import shared

        return shared(kind, self, sync_bn)

    def stop_request(self) -> StopRequest:
        return SharedStop(self)

    def writer(self, folder: Path) -> CheckpointWriter | NoWriter:
        return FirstsWriter(folder) if self.first else NoWriter()

    def any_of_all(self, flag: bool) -> Callable[[], bool]:
        """Start asking whether `flag` is set in any process; the result waits for the answer."""
        tensor = torch.tensor([int(flag)], dtype=torch.int32)
        work = self._talk(lambda: self._dist.all_reduce(tensor, op=self._dist.ReduceOp.MAX, async_op=True))

        def answer() -> bool:
            self._talk(work.wait)
            return bool(tensor.item())

        return answer

    def sum_over_all(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place; on a GPU nothing waits."""
        self._talk(lambda: self._dist.all_reduce(tensor))
        return tensor

    def _talk(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except RuntimeError as error:
            raise self._loss(error) from error

    def lost(self, error: Exception) -> FastresError | None:
        text = str(error)
        told = isinstance(error, self._dist.DistError) or any(words in text for words in WORDS_OF_LOSS)
        return self._loss(error) if told else None

    def _loss(self, error: Exception) -> FastresError:
        try:  # a process that gave up has pinned up why, before it went
            fault = self.board.fault()
        except RuntimeError:  # torchrun's own store is gone
            fault = None
        words = str(error).splitlines()[0].rpartition("/")[2].partition("] ")
        return fault or MachineError(
            f"process {self.rank} of {self.size} lost another one ({(words[2] or words[0]).partition('. ')[0]}), "
            f"expected an answer within {PATIENCE_S} s; see what that one said; the same command resumes from the last "
            "checkpoint"
        )

    def __exit__(self, kind, error, _) -> None:
        """Leave together where all do, since torchrun ends the others as soon as one fails; a fault does not wait."""
        try:
            if error is not None:
                self.board.announce(error)
            together = error is None or isinstance(error, (Preempted, Diverged))
            if together and self.board.part(PATIENCE_S):
                self._dist.destroy_process_group()
        except (RuntimeError, FastresError):  # another one went first, and with it the need to wait
            return
        finally:
            self.board.leave()


def slice_of(whole: int, rank: int, size: int) -> tuple[int, int]:
    """First and end of a process's positions in a batch of `whole`: the first processes have one more, if any."""
    base, extra = divmod(whole, size)
    first = rank * base + min(rank, extra)
    return first, first + base + (rank < extra)


def open_world(wanted: str) -> World:
    """The world torchrun's environment describes, else one process. `wanted`: --device, auto cpu cuda or cuda:N.

    Under torchrun each process has the GPU of its LOCAL_RANK. UsageError for one named by number.
    """
    if any(name not in os.environ for name in TORCHRUN_SETS) or os.environ["WORLD_SIZE"] == "1":
        return World(choose_device(wanted))
    if wanted.startswith("cuda:"):
        raise UsageError(f"--device {wanted}: each process has its own GPU under torchrun, expected auto, cuda or cpu")
    on_gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return Processes(choose_device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else wanted))
