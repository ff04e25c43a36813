"""The way of a streaming engine's batches to a GPU: who waits for whom. What would need one is stood in for."""

import sys
import types

import numpy as np
import pytest
import torch

from fastres.data import dali

GPU = torch.device("cuda", 0)


class Calls:
    """Streams, events and DALI's copy that note who is asked for what, in order."""

    def __init__(self, monkeypatch) -> None:
        self.made: list[tuple] = []
        self.current = "training"
        calls = self

        class Event:
            def synchronize(self) -> None:
                calls.made.append(("host waits for", "copied"))

        class Stream:
            def __init__(self, name) -> None:
                self.name = name if isinstance(name, str) else "copies"

            def record_event(self) -> Event:
                calls.made.append((self.name, "records", "copied"))
                return Event()

            def wait_event(self, _: Event) -> None:
                calls.made.append((self.name, "waits for", "copied"))

            def synchronize(self) -> None:
                calls.made.append(("host waits for", self.name))

            def __enter__(self) -> None:
                calls.current = self.name

            def __exit__(self, *_) -> None:
                calls.current = "training"

        class Tensor:
            def record_stream(self, stream: Stream) -> None:
                calls.made.append(("memory is kept for", stream.name))

        def empty(shape, dtype, device) -> Tensor:
            assert (shape, dtype, device) == ([2, 4, 4, 3], torch.uint8, GPU)
            calls.made.append((calls.current, "allocates"))
            return Tensor()

        def feed_ndarray(dense, copy, cuda_stream: Stream) -> None:
            calls.made.append((cuda_stream.name, "copies"))

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self.current))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
        monkeypatch.setattr(dali.torch, "empty", empty)
        plugin = types.SimpleNamespace(feed_ndarray=feed_ndarray)
        for name in ("nvidia", "nvidia.dali", "nvidia.dali.plugin"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "nvidia.dali.plugin.pytorch", plugin)


def test_dalis_batch_is_copied_without_a_wait_for_the_training(monkeypatch):
    """The host waits for the copy alone, and before DALI fills its buffer again; the training waits for the copy; its
    memory, which is the copying stream's, goes back there when the training has read it."""
    calls = Calls(monkeypatch)
    dense = types.SimpleNamespace(shape=lambda: [2, 4, 4, 3])
    dali._Copier(GPU)(types.SimpleNamespace(as_tensor=lambda: dense))
    assert calls.made == [
        ("copies", "allocates"),
        ("copies", "copies"),
        ("copies", "records", "copied"),
        ("training", "waits for", "copied"),
        ("memory is kept for", "training"),
        ("host waits for", "copied"),
    ]


@pytest.mark.parametrize("images", [np.zeros((2, 4, 4, 3), np.uint8), torch.zeros(2, 4, 4, 3, dtype=torch.uint8)])
def test_a_stream_uploads_from_pinned_memory_without_a_wait(monkeypatch, images):
    """Images that the reader has left on the host, and ids; images that are on the GPU already are not touched."""
    from fastres.data import stream

    pinned, uploads = [], []

    def empty(shape, dtype, pin_memory):
        assert pin_memory
        found = torch.zeros(shape, dtype=dtype)
        pinned.append(found.data_ptr())
        return found

    def pin(tensor):
        pinned.append(tensor.data_ptr())
        return tensor

    def to(tensor, device, non_blocking=False):
        uploads.append((tensor.data_ptr() in pinned, non_blocking))
        return tensor

    monkeypatch.setattr(stream.torch, "empty", empty)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    split = stream.Stream.__new__(stream.Stream)
    split.device, split.side, split._pinned = torch.device("cpu"), 4, True
    split._labels = np.zeros(2, np.int64)
    split.labels = torch.from_numpy(split._labels)
    file = types.SimpleNamespace(check=lambda: None, unchanged=lambda: None)
    split.reader = types.SimpleNamespace(name="made up", file=file, read=lambda ids, size: (part for part in [images]))
    (batch,) = split.batches(np.arange(2), 2)
    assert len(batch.ids) == 2
    on_host = isinstance(images, np.ndarray)
    assert sorted(uploads) == sorted([(True, True), (on_host, True)])
