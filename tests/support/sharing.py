"""What tests of several processes do in each of them; the same functions serve as the one-process reference."""

import contextlib
import copy
import hashlib
import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.data.slices import slice_of, slices
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate import scores as scores_module
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import DataError, Preempted
from fastres.machine.processes.distributed import open_world
from fastres.machine.processes.world import World
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build
from fastres.schedules.types import Optimizer, Stage, ViewSettings
from fastres.stage.optimizer import sgd, start_momentum
from fastres.stage.pull import Pull
from fastres.stage.shared_step import shared
from fastres.stage.step import EagerStep
from fastres.train import command as train_command
from fastres.views.geometry import Geometry
from tests.conftest import TINY_FILE

CPU = Precision("fp32", torch.device("cpu"))
RATE = 0.001
# ids trained on in batches of 8: the last batch has 3 images (uneven slices) or 1 (empty ones)
UNEVEN, EMPTY = 19, 9
PAPERS = ViewSettings()
MIXED = ViewSettings(mixup=0.4, cutmix=1.0, mixing=0.9)
PULL = 400.0  # takes 0.4 of what a step of RATE moved back in the next


def everything(packed: str) -> dict:
    """All that is compared between 1, 2 and 3 processes, from one world."""
    with open_world("cpu") as world:
        return {
            "rank": world.rank,
            "views": views_by_id(world, packed),
            "scores": scores(world, packed),
            "sync": [trained(world, packed, ("*",), count, sync_bn=True) for count in (UNEVEN, EMPTY)],
            "own": [trained(world, packed, ("*",), count, sync_bn=False) for count in (UNEVEN, EMPTY)],
            "head": trained(world, packed, ("fc.*",), EMPTY, sync_bn=False),
            "augmented": trained(world, packed, ("*",), UNEVEN, sync_bn=True, settings=MIXED, pull=PULL),
            "stem": trained(world, packed, ("conv1.*",), EMPTY, sync_bn=True),
            "fp16": overflowing(world, packed),
        }


def _data(packed: str) -> Resident:
    return Resident(Path(packed), load_manifest(Path(packed)), "train", CPU.device)


def _plan(upscale: int = 1, settings: ViewSettings = PAPERS) -> views.TrainPlan:
    return views.TrainPlan(
        geometry=Geometry(16, upscale), settings=settings, seed=0, stage=0, epoch=1, dtype=torch.float32
    )


def views_by_id(world: World, packed: str) -> dict[str, str]:
    """A digest of the training view of each id this process sees in one epoch of 40 images in batches of 16."""
    seen = {}
    for batch in slices(_data(packed), np.random.default_rng(0).permutation(40), 16, world.rank, world.size):
        x = views.apply(batch.images, batch.rows, batch.ids, _plan(4))
        for image, view in zip(batch.ids.tolist(), x.numpy()):
            assert str(image) not in seen
            seen[str(image)] = hashlib.sha256(view.tobytes()).hexdigest()
    return seen


def scores(world: World, packed: str) -> str:
    """A digest of all 12-crop scores of 20 images, made 7 at a time."""
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 4)).eval()
    torch.manual_seed(world.rank)  # every process has its own statistics before
    network.bn1.running_mean += torch.randn(8)
    network.bn1.running_mean.mul_(1 if world.first else 5)
    manifest = load_manifest(Path(packed))
    data = Resident(Path(packed), manifest, "val", CPU.device)
    scores_module.VIEWS_PER_PASS["cpu"] = 12 * 7
    try:
        made = scores_module.evaluate(network, data, Geometry(16, 4), ViewSettings(), CPU, world=world)
    finally:
        scores_module.VIEWS_PER_PASS["cpu"] = 256
    assert made[1].shape == (20, 12, 4)
    return hashlib.sha256(made[1].numpy().tobytes()).hexdigest() + str(made[0]["vote"])


def _start(patterns: tuple[str, ...]) -> tuple:
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 4, "3x3"))
    learning = set_trainable(network, patterns)
    training_mode(network, Stage(name="x", epochs=1, train=patterns, upscale=1))
    return network, learning, sgd(learning, Optimizer(lr=RATE), RATE)


def _eager(world: World, sync_bn: bool) -> type:
    return shared(EagerStep, world, sync_bn) if world.size > 1 else EagerStep


def trained(
    world: World,
    packed: str,
    patterns: tuple[str, ...],
    count: int,
    *,
    sync_bn: bool,
    settings: ViewSettings = PAPERS,
    pull: float = 0.0,
) -> dict:
    """A few steps of all processes together: mean loss and what learned, with the first process's statistics."""
    network, learning, optimizer = _start(patterns)
    drawn = Pull(learning, pull) if pull else None
    step, ids = _eager(world, sync_bn)(network, optimizer, CPU, functional.cross_entropy, drawn), np.arange(40)
    ids = ids[:: 40 // count][:count]
    for batch in slices(_data(packed), ids, 8, world.rank, world.size, settings.together):
        step(batch, _plan(settings=settings), RATE)
    return {
        "loss": step.mean_loss(),
        "learned": flat(learning),
        "statistics": flat([b for b in network.buffers() if b.is_floating_point()]),
        "batches": [int(b) for b in network.buffers() if not b.is_floating_point()],
    }


class Fp16(Precision):
    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**10)


def overflowing(world: World, packed: str) -> dict:
    """Two fp16 steps; in the first one the last process's loss alone overflows."""
    network, learning, optimizer = _start(("*",))
    start_momentum(optimizer)  # as fp16's first step needs it; done for GPUs alone, since CPUs run no fp16
    before = flat(learning)
    step = _eager(world, False)(network, optimizer, Fp16("fp16", CPU.device))
    plan = views.TrainPlan(
        geometry=Geometry(16, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1, dtype=torch.float16
    )
    scale, seen = step.scaler.scale, []
    step.scaler.scale = lambda loss: scale(loss * (2.0**127 if world.rank == world.size - 1 else 1.0))
    for batch in slices(_data(packed), np.arange(16), 8, world.rank, world.size):
        step(batch, plan, RATE)
        seen.append([flat(learning) == before, step.scaler.get_scale()])
        step.scaler.scale = scale
    return {"seen": seen, "learned": flat(learning)}


def command(main, arguments: list[str]) -> dict:
    """A command in this process as its shell would see it: exit code, stdout and stderr."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        code = run_command(lambda: main(arguments))
    return {"code": code, "out": out.getvalue(), "said": said.getvalue()}


def train_run(packed: str, folder: str, extra: list[str], event: list | None = None) -> dict:
    """`train` on the tiny schedule; `event`: (kind, rank, step), what happens to one process after its n-th step."""
    if event:
        _plan_event(*event)
    arguments = [
        "--schedule",
        str(TINY_FILE),
        "--data",
        packed,
        "--run-dir",
        folder,
        "--wandb",
        "off",
        "--precision",
        "fp32",
        *extra,
    ]
    return command(train_command.main, arguments)


def leave_late(seconds: float) -> float:
    """Every process is preempted, each `seconds` after the one before it. When this one was out, in s."""
    with contextlib.suppress(Preempted), open_world("cpu") as world:
        time.sleep(seconds * world.rank)
        raise Preempted("stopped")
    return time.monotonic()


def _plan_event(kind: str, rank: int, count: int) -> None:
    original, done = EagerStep.__call__, 0

    def counting(self, *arguments, **named):
        nonlocal done
        original(self, *arguments, **named)
        done += 1
        if done == count and int(os.environ.get("RANK", 0)) == rank:
            if kind == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            elif kind == "fault":
                raise DataError("a file that only this process reads is damaged; pack it again")

    EagerStep.__call__ = counting


def evaluate_run(arguments: list[str]) -> dict:
    return command(evaluate.main, arguments)


def emulated(size: int, packed: str, count: int) -> dict:
    """`trained` of `size` processes without --sync-bn, by one: slice after slice, gradients added up."""
    network, learning, optimizer = _start(("*",))
    total, ids, data = 0.0, np.arange(40)[:: 40 // count][:count], _data(packed)
    for start in range(0, count, 8):
        whole = ids[start : start + 8]
        optimizer.zero_grad()
        for rank in range(size):
            a, b = slice_of(len(whole), rank, size)
            if a == b:
                continue
            rows = torch.from_numpy(whole[a:b])
            statistics = copy.deepcopy(list(network.buffers()))
            loss = functional.cross_entropy(network(views.apply(data.images, rows, rows, _plan())), data.labels[rows])
            (loss * (b - a) / len(whole)).backward()
            total += loss.item() * (b - a)
            if rank:  # only the first process's are kept
                for buffer, before in zip(network.buffers(), statistics):
                    buffer.copy_(before)
        optimizer.step()
    return {
        "loss": total / count,
        "learned": flat(learning),
        "statistics": flat([b for b in network.buffers() if b.is_floating_point()]),
        "batches": [int(b) for b in network.buffers() if not b.is_floating_point()],
    }


def flat(tensors: list[torch.Tensor]) -> list[float]:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).tolist()
