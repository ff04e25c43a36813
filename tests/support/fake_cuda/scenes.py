"""The scenes that tests/stage/test_fake_cuda.py looks at: steps of every kind, a captured step, a whole run.

    python -m tests.support.fake_cuda.scenes FOLDER

A process of its own, since it patches torch; prints what it counted as one JSON object. FOLDER: for the run's data and
files.
"""

import contextlib
import functools
import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.nn import functional
from torchvision.models.resnet import ResNet

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.device import Precision
from fastres.model.network import Architecture, build
from fastres.schedules.paper import PAPER
from fastres.schedules.types import Stage, ViewSettings
from fastres.stage.average import weight_average
from fastres.stage.captured import CapturedStep
from fastres.stage.stage_step import stage_step
from fastres.views.geometry import Geometry
from tests.support import worlds
from tests.support.augmented import AUGMENTED
from tests.support.fake_cuda.counting import CUDA, Count
from tests.support.fake_cuda.mode import Stream, fake_cuda
from tests.support.fake_cuda.whole_run import EMA, whole_run

BATCH, SIDE, CLASSES = PAPER.batch_size, 64, 200
RATE = 0.01
KINDS = ("eager bf16", "eager fp32", "plain bf16", "padded bf16")  # all but the first in the stages of all layers alone


@functools.cache  # to build one costs three times as much as a step of it
def network_of(upscale: int) -> ResNet:
    stem = "7x7" if upscale == 4 else "3x3"
    return build(Architecture(PAPER.arch, 64, CLASSES, stem)).to(CUDA, memory_format=torch.channels_last)


def prepared(data: Resident, stage: Stage, kind: str, precision: str, settings: ViewSettings = PAPER.views) -> tuple:
    """A step, a plan and two batches. Views of that geometry have been made before."""
    on = Precision(precision, CUDA)
    network = network_of(stage.upscale)
    step = stage_step(network, stage, replace(PAPER, stages=(stage,), step=kind), on)
    geometry = Geometry(SIDE, stage.upscale)
    plan = views.TrainPlan(geometry=geometry, settings=settings, seed=0, stage=0, epoch=1, dtype=on.dtype)
    batches = list(data.batches(np.arange(2 * BATCH) % len(data), BATCH))
    views.apply(batches[0].images, batches[0].rows, batches[0].ids, plan)
    return step, plan, batches


def steps(count: Count, data: Resident, stage: Stage, kind: str, settings: ViewSettings = PAPER.views) -> dict:
    """One step, and the update of the average after it."""
    network = network_of(stage.upscale)
    network.zero_grad()
    held = count.held - sum(value.nbytes for value in network.state_dict().values())
    step, plan, batches = prepared(data, stage, *kind.split(), settings)
    average = weight_average(network, EMA if kind == "eager bf16" else 0.0)
    count.reset()
    step(batches[0], plan, RATE)
    kinds, launches, peak = dict(count.launches), sum(count.launches.values()), count.peak
    average.update()
    found = {
        "launches": launches,
        "average": sum(count.launches.values()) - launches,
        "peak": peak - held,
        "kinds": kinds,
    }
    return {**found, **count.noted()}


def captured(count: Count, data: Resident, stage: Stage, settings: ViewSettings = PAPER.views) -> dict:
    """What a recorded step does inside the window, and the replay after it on the host."""

    class Graph:
        def replay(self) -> None:
            count.launches["graph"] += 1

    @contextlib.contextmanager
    def window(_: Graph, stream: Stream):  # the warm-up's, of this device: torch's own is of the first device seen
        assert isinstance(stream, Stream)
        capturing.return_value = True
        with count.phase("window"):
            yield
        capturing.return_value = False

    with (
        mock.patch("torch.cuda.is_current_stream_capturing", return_value=False) as capturing,
        mock.patch("fastres.stage.captured.WARM_UP_STEPS", 1),
        mock.patch("torch.cuda.CUDAGraph", Graph),
        mock.patch("torch.cuda.graph", window),
        mock.patch("torch.cuda.Stream", lambda: Stream(count)),
        mock.patch("torch.cuda.stream", lambda _: contextlib.nullcontext()),
        mock.patch("torch._subclasses.fake_tensor.FakeTensor.data_ptr", lambda _: 1, create=True),
    ):
        step, plan, batches = prepared(data, stage, "captured", "bf16", settings)
        assert type(step) is CapturedStep
        with count.phase("recording"):
            step(batches[0], plan, RATE)
        recorded = count.noted()
        count.reset()
        step(batches[1], replace(plan, epoch=2), RATE)
    return {"recording": recorded, "replay": count.noted(), "replay_launches": dict(count.launches)}


def item_in_the_loss(count: Count, data: Resident, stage: Stage) -> dict:
    """What is seen where somebody looks at the loss in every step."""

    def looking(logits, labels, label_smoothing=0.0, loss=functional.cross_entropy):
        value = loss(logits, labels, label_smoothing=label_smoothing)
        assert value.item() is not None
        return value

    with mock.patch.object(functional, "cross_entropy", looking):
        return steps(count, data, stage, "plain bf16")


def controls(count: Count) -> dict:
    """What each of these is noted as."""
    x, host = torch.ones(3, device=CUDA), torch.ones(3)
    asked = {
        "item": lambda: x[0].item(),
        "bool": lambda: bool((x > 0).all()),
        "equal": lambda: torch.equal(x, x + 1),
        "cpu": lambda: x.cpu(),
        "to the GPU": lambda: host.to(CUDA),
        "pageable, not blocking": lambda: host.to(CUDA, non_blocking=True),
        "pinned, blocking": lambda: host.pin_memory().to(CUDA),
        "pinned, not blocking": lambda: host.pin_memory().to(CUDA, non_blocking=True),
        "integer index": lambda: x[torch.zeros(2, dtype=torch.int64, device=CUDA)],
        "boolean index": lambda: x[x > 0],
        "nonzero": lambda: x.nonzero(),
        "synchronize": lambda: torch.cuda.synchronize(),
        "add": lambda: x + x,
    }
    found = {}
    for name, ask in asked.items():
        count.reset()
        with contextlib.suppress(DynamicOutputShapeException):  # nobody knows how many: noted before it is asked
            ask()
        found[name] = [what for _, what, _ in count.syncs]
    return found


def main(folder: Path) -> dict:
    torch.set_num_threads(1)
    packed = worlds.pack(folder / "packed", side=SIDE, classes=CLASSES, train=BATCH + 160, val=300)
    found: dict = {"steps": {}, "captured": {}}
    gc.freeze()  # what was imported needs no more looks
    with fake_cuda() as count:
        data = Resident(packed, load_manifest(packed), "train", CUDA)
        for stage in PAPER.stages:
            kinds = KINDS if stage.train == ("*",) else KINDS[:1]
            found["steps"][stage.name] = {kind: steps(count, data, stage, kind) for kind in kinds}
        augmented = ViewSettings(**AUGMENTED["everything"])
        found["augmented"] = steps(count, data, PAPER.stages[3], "eager bf16", augmented)
        found["pulled"] = steps(count, data, replace(PAPER.stages[3], pull=0.01), "eager bf16")
        found["fp16"] = steps(count, data, PAPER.stages[1], "eager fp16")
        for stage in PAPER.stages[:2]:
            count.reset()
            found["captured"][stage.name] = captured(count, data, stage)
        count.reset()
        found["captured"]["augmented"] = captured(count, data, replace(PAPER.stages[3], pull=0.01), augmented)
        found["controls"] = controls(count)
        found["looking"] = item_in_the_loss(count, data, PAPER.stages[0])
        count.reset()
        found["run"] = whole_run(count, packed, folder)
    return found


if __name__ == "__main__":
    sys.stdout, out = sys.stderr, sys.stdout  # the run's own words
    print(json.dumps(main(Path(sys.argv[1]))), file=out)
