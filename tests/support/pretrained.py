"""The proof that the shipped nets are what their schedules make: losses of their first steps, which anyone can remake.

    python -m tests.support.pretrained       # renders what the first steps need, and compares

The whole of it takes the commands above SMALL_WORLD_PRETRAIN in schedules/small.py. A few steps need only the few
hundred images that the first epoch's order begins with, and those can be rendered alone.
"""

import io
import json
import sys

import numpy as np
import torch
from PIL import Image

from fastres import views
from fastres.data.batch import Batch
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import DataError
from fastres.model.network import Architecture, build
from fastres.model.weights import SHIPPED
from fastres.schedules import SMALL_WORLD_PRETRAIN, SMALL_WORLD_PRETRAIN_50
from fastres.schedules.types import Schedule
from fastres.stage.learning_rate import learning_rate
from fastres.stage.stage_step import stage_step
from fastres.stage.step import PlainStep
from fastres.views.draw import epoch_order
from fastres.views.geometry import Geometry
from preprocess.small_world import SOURCE, render_jpegs

# By the net's name: how it was made.
NETS = {
    "small_world_resnet18_w16": (SMALL_WORLD_PRETRAIN, 0),
    "small_world_resnet18_w16_s1": (SMALL_WORLD_PRETRAIN, 1),
    "small_world_resnet50_w16": (SMALL_WORLD_PRETRAIN_50, 0),
}
STEPS = 5
# Rendering goes through sin and exp, and convolutions through other kernels on other machines.
TOLERANCE = 0.02


def recorded(name: str) -> list[float]:
    """The first losses of the net of that name, as its training had them."""
    return json.loads((SHIPPED / f"{name}.first_steps.json").read_text())["losses"]


def first_losses(schedule: Schedule, seed: int, steps: int = STEPS) -> list[float]:
    """Training loss of each of the first steps of the pretraining, in float32 on the CPU."""
    stage, count, batch_size = schedule.stages[0], SOURCE.count("train"), schedule.batch_size
    order = epoch_order(count, seed=seed, stage=0, epoch=1)[: steps * batch_size]
    files, labels, _ = render_jpegs(SOURCE, "train", order)
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(Architecture(schedule.arch, schedule.width, SOURCE.classes))
    rate = learning_rate(schedule.lr_policy, schedule.optimizer.lr, -(-count // batch_size), stage.epochs)
    step = stage_step(network, stage, schedule, Precision("fp32", torch.device("cpu")), PlainStep)
    plan = views.TrainPlan(
        geometry=Geometry(SOURCE.side, stage.upscale), settings=schedule.views, seed=seed, stage=0, epoch=1
    )
    pixels, losses = torch.from_numpy(images), []
    for k in range(steps):
        rows = torch.arange(k * batch_size, (k + 1) * batch_size)
        step.begin_epoch()
        batch = Batch(pixels, rows, torch.from_numpy(labels)[rows], torch.from_numpy(order)[rows])
        step(batch, plan, rate.at(k))
        losses.append(step.mean_loss())
    return losses


def main() -> int:
    for name, how in NETS.items():
        losses, theirs = first_losses(*how), recorded(name)
        for k, pair in enumerate(zip(losses, theirs, strict=True)):
            print(f"{name}, step {k + 1}: loss {pair[0]:.4f}, recorded {pair[1]:.4f}")
        if max(abs(a - b) for a, b in zip(losses, theirs, strict=True)) > TOLERANCE:
            raise DataError(
                f"{name}: the first losses differ by more than {TOLERANCE} from those beside the weights, expected the "
                "same; the renderer, the views or the schedule changed, so the shipped net should be made again"
            )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
