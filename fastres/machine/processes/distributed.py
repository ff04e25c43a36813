"""Several processes, started by torchrun: gloo on CPUs, NCCL on GPUs, one machine or many.

    torchrun --nproc-per-node 4 -m fastres.train --schedule paper

Each process takes its slice of the same global batches and its share of the same evaluation batches, so neither the
views nor a score depend on how many there are.
"""

import json
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import nn

from fastres.machine import console
from fastres.machine.device import choose_device
from fastres.machine.errors import Diverged, FastresError, MachineError, Preempted, UsageError, first_line
from fastres.machine.gpu import is_usable
from fastres.machine.processes.noticeboard import Noticeboard
from fastres.machine.processes.shared_stop import SharedStop
from fastres.machine.processes.signals import StopRequest
from fastres.machine.processes.world import World

# A collective that takes longer means a peer that hangs. With torchrun's own 30 s between asking and killing, all
# processes are gone within a minute. Whatever may rightly take longer waits at the noticeboard instead.
PATIENCE_S = 20
WORDS_OF_LOSS = ("gloo/", "NCCL", "pair closure", "Connection closed by peer")
SHOWN = 5  # differences between processes in one sentence
TORCHRUN_SETS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def _check_place() -> None:
    """MachineError for a rank that no process of so many has: it would wait minutes for a place that is never free."""
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
        raise MachineError(f"RANK is {rank} of WORLD_SIZE {size}, expected 0 or more and below it; start with torchrun")


class Processes(World):
    """Several processes, started by torchrun."""

    def __init__(self, device: torch.device) -> None:
        """Meet the others; MachineError where torch.distributed cannot."""
        super().__init__(device)
        import torch.distributed as dist

        self._dist = dist
        self._timeout = timedelta(seconds=PATIENCE_S)
        _check_place()
        try:
            store, self.rank, self.size = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
            # tensors on the CPU go through gloo also where gradients go through NCCL
            backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", store),
                rank=self.rank,
                world_size=self.size,
                timeout=self._timeout,
            )
        except (RuntimeError, ValueError) as error:
            raise MachineError(
                f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not meet the others at "
                f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} ({first_line(error)}); check "
                "torchrun's rendezvous options and the network"
            ) from error
        self.first = self.rank == 0
        self.board = Noticeboard(dist.PrefixStore("board", store), self.rank, self.size, PATIENCE_S)
        if not self.first:
            console.mute()

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
            together[ids], scored[ids] = rows.cpu(), 1
        self._talk(lambda: [self._dist.all_reduce(tensor) for tensor in (together, scored)])
        assert bool((scored == 1).all()), "every image must be scored exactly once"
        return together

    def from_first(self, work: Callable[[], Any]) -> Any:
        """The result must be plain JSON values."""
        return self.board.from_first(work)

    def meet(self) -> None:
        self.board.meet()

    def agree(self, facts: Callable[[], dict[str, Any]]) -> None:
        found = self.board.of_all({"host": socket.gethostname(), "facts": facts()})
        differing = differences([note["facts"] for note in found], [note["host"] for note in found])
        if differing:
            more = [f"and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
            raise UsageError(
                f"the {self.size} processes differ in {', '.join(differing[:SHOWN] + more)}; expected one run: give "
                "all the same command, code and versions, and let all see the same data, weights and run folder"
            )

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

    def stop_request(self) -> StopRequest:
        return SharedStop(self.any_of_all, self.board)

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
        words = first_line(error).rpartition("/")[2].partition("] ")
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


def differences(facts: list[dict[str, Any]], hosts: list[str]) -> list[str]:
    """Words such as "seed (0 in process 0 on a, 1 in process 1 on b)" for what is not the same everywhere."""
    names, words = dict.fromkeys(name for own in facts for name in own), []
    for name in names:
        values = [json.dumps(own[name]) if name in own else "not set" for own in facts]
        other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            said = (f"{values[rank]} in process {rank} on {hosts[rank]}" for rank in (0, other))
            words.append(f"{name} ({', '.join(said)})")
    return words


def open_world(wanted: str) -> World:
    """The world torchrun's environment describes, else one process. `wanted`: --device, auto cpu cuda or cuda:N.

    Under torchrun each process has the GPU of its LOCAL_RANK. UsageError for one named by number.
    """
    if any(name not in os.environ for name in TORCHRUN_SETS) or os.environ["WORLD_SIZE"] == "1":
        return World(choose_device(wanted))
    if wanted.startswith("cuda:"):
        raise UsageError(f"--device {wanted}: each process has its own GPU under torchrun, expected auto, cuda or cpu")
    on_gpu = wanted == "cuda" or (wanted == "auto" and is_usable()[0])
    return Processes(choose_device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else wanted))
