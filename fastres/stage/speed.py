"""How fast a stage trains, as numbers on the host: none of them waits for the device."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from fastres.data.batch import Batch
from fastres.machine.device import Precision
from fastres.machine.facts import mfu_pct, peak_flops
from fastres.model.flop import training_flop
from fastres.model.network import ResNet, describe
from fastres.track.clock import Rate


class Speed:
    """Counts the seconds of an epoch's steps, those of waiting for batches, and a steady img/s over the stage.

    What a machine cannot tell is left out of the readings, not guessed.
    """

    def __init__(self, network: ResNet, learns: tuple[str, ...], crop: int, precision: Precision, devices: int) -> None:
        """`learns`: the stage's patterns of what trains; `devices`: the processes that share the images."""
        self.train_s_before = 0.0  # of the epoch's steps that are over, those before a resume included
        self.wait_s = 0.0  # of the epoch's seconds, those in which the loop had no batch yet
        self._rate = Rate()
        self._since: float | None = None
        self._device = precision.device if precision.device.type == "cuda" else None
        self._devices, self._flop, self._peak = devices, 0, None
        if self._device is not None:
            self._peak = peak_flops(torch.cuda.get_device_name(self._device), precision.name)
        if self._peak is not None:
            self._flop = training_flop(describe(network.state_dict()), learns, crop)

    def fed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; counts the time the loop waits for each."""
        source = iter(batches)
        while True:
            since = time.perf_counter()
            batch = next(source, None)
            self.wait_s += time.perf_counter() - since
            if batch is None:
                return
            yield batch

    @contextmanager
    def epoch_running(self) -> Iterator[None]:
        """Count the time of an epoch's steps. An exception leaves the epoch's clock running, for the checkpoint."""
        self._since = time.perf_counter()
        with self._rate.running():
            yield
        self.train_s_before, self._since = self.train_s, None

    def step(self, images: int) -> None:
        """One step with `images` images is done."""
        self._rate.step(images)

    def begin_epoch(self) -> None:
        """Forget the seconds of the epoch before."""
        self.train_s_before = self.wait_s = 0.0

    @property
    def train_s(self) -> float:
        """Seconds of the epoch's steps so far."""
        return self.train_s_before + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def read(self) -> dict[str, float]:
        """img_per_s (steady, of the stage; absent while it warms up), data_wait_pct (share of the epoch's training
        time so far in which the loop had no batch), and on a GPU gpu_mem_gb (most so far, 10^9 bytes) and mfu_pct
        (where its peak is known)."""
        found = {}
        img_per_s, train_s = self._rate.img_per_s, self.train_s
        if img_per_s is not None:
            found["img_per_s"] = img_per_s
        if train_s > 0:
            found["data_wait_pct"] = wait_pct(self.wait_s, train_s)
        if self._device is not None:
            found["gpu_mem_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
        if self._peak is not None and img_per_s is not None:
            found["mfu_pct"] = mfu_pct(self._flop, img_per_s, self._peak, self._devices)
        return found


def wait_pct(wait_s: float, train_s: float) -> float | None:
    """Share of the training time in which the loop waited for its next batch, in %; None before any training."""
    return 100 * wait_s / train_s if train_s > 0 else None
