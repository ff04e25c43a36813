"""A run of the paper's four stages through train's own procedure, on fake `cuda` tensors."""

import contextlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from fastres.machine.processes.world import World
from fastres.schedules.paper import PAPER
from fastres.train import command
from fastres.train.options import Options
from fastres.views.draw import epoch_order
from tests.support.fake_cuda.counting import CUDA, Count

EMA = 0.99
EPOCHS = (1, 2, 1, 1)  # one that its stage goes on after, and four that end theirs


def whole_run(count: Count, packed: Path, folder: Path) -> dict:
    """Every stage of the paper's schedule through train's own procedure, each place of it a phase."""
    stages = tuple(replace(row, epochs=epochs) for row, epochs in zip(PAPER.stages, EPOCHS, strict=True))
    schedule = replace(PAPER, stages=stages, weights=None, ema=EMA, step="eager")  # auto would time each kind first
    saved: list[Counter] = []

    def written(_folder, _position, state, _error) -> None:
        saved.append(Counter(_kinds(state, count)))

    orders: list[list] = []  # what the run was at when each epoch's order was made, and how many validations were read

    def ordered(*given, **named):
        orders.append([count.now, count.syncs["validation", "blocking download", "train/loop.py:judge"]])
        return epoch_order(*given, **named)

    phases = {
        "step": "fastres.stage.step.EagerStep.__call__",
        "average": "fastres.stage.average.RunningAverage.update",
        "look": "fastres.train.run.Run.check_finite",
        "epoch": "fastres.train.loop.train_epoch",
        "validation": "fastres.train.loop.judge",
        "after validation": "fastres.train.run.Run.epoch_done",
        "checkpoint": "fastres.train.run.Run._save",
        "stage": "fastres.train.run.Run.begin_stage",
    }
    stand_ins = {  # fake tensors have no bytes to write and no values to draw; the rehearsal is of no device
        "fastres.stage.stage_run.epoch_order": ordered,
        "fastres.train.command.rehearse": lambda *_, **__: None,
        "fastres.train.saving.save_checkpoint": written,
        "fastres.train.run.keep_stage_end": lambda *_: None,
        "fastres.train.run.Run._publish": lambda *_: {},
        "fastres.track.pictures.stem_filters": lambda *_: folder / "stem.png",
        "fastres.train.run.LOOK_EVERY": 2,
        "fastres.evaluate.scores.VIEWS_PER_PASS": {"cuda": 200},
    }
    with contextlib.ExitStack() as stack:
        for name, place in phases.items():
            stack.enter_context(mock.patch(place, count.during(name, _found(place))))
        for place, stand_in in stand_ins.items():
            stack.enter_context(mock.patch(place, stand_in))
        options = Options(
            schedule=schedule, data=packed, run_dir=folder / "run", precision="bf16", device="cuda", wandb="off",
            checkpoint_every=0, no_evaluation=True,
        )  # fmt: skip
        command.fit(options, World(CUDA))
    return {**count.noted(), "entered": dict(count.entered), "orders": orders, "saved": [dict(one) for one in saved]}


def _found(place: str) -> Callable:
    """The object of a dotted name that ends in module.function or module.Class.method."""
    parts = place.split(".")
    depth = next(n for n in range(len(parts) - 1, 0, -1) if parts[n - 1].islower())
    found = importlib.import_module(".".join(parts[:depth]))
    for part in parts[depth:]:
        found = getattr(found, part)
    return found


def _kinds(state, count: Count) -> Iterator[str]:
    """Where the tensors of nested state lie."""
    if isinstance(state, torch.Tensor):
        yield state.device.type if state.untyped_storage() not in count.pinned else "pinned"
    elif isinstance(state, (dict, list, tuple)):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _kinds(value, count)
