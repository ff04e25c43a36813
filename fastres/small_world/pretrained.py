"""The proof that the shipped net is what its schedule makes: the losses of the first steps, which anyone can remake.

    python -m fastres.small_world.pretrained       # renders what the first steps need, and compares

The whole of it takes the two commands above SMALL_WORLD_PRETRAIN in schedules/small.py. A few steps need only the
few hundred images that the first epoch's order begins with, and those can be rendered alone.
"""

import io
import json
import sys

import numpy as np
import torch
from PIL import Image

from fastres import views
from fastres.data.resident import Batch
from fastres.engine.learning_rate import learning_rate
from fastres.engine.precision import Precision
from fastres.engine.stage_step import stage_step
from fastres.engine.step import PlainStep
from fastres.errors import DataError, run_command
from fastres.geometry import Geometry
from fastres.model.network import Architecture, build
from fastres.model.weights import SHIPPED
from fastres.schedules import SMALL_WORLD_PRETRAIN
from fastres.small_world import SOURCE, render_jpegs
from fastres.views.draw import epoch_order

RECORD = SHIPPED / "small_world_resnet18_w16.first_steps.json"
STEPS = 5
SEED = 0
# Rendering goes through sin and exp, and convolutions through other kernels on other machines.
TOLERANCE = 0.02


def first_losses(steps: int = STEPS) -> list[float]:
    """Training loss of each of the first steps of the pretraining, in float32 on the CPU."""
    schedule = SMALL_WORLD_PRETRAIN
    stage, count, batch_size = schedule.stages[0], SOURCE.count("train"), schedule.batch_size
    order = epoch_order(count, seed=SEED, stage=0, epoch=1)[: steps * batch_size]
    files, labels, _ = render_jpegs(SOURCE, "train", order)
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = build(Architecture(schedule.arch, schedule.width, SOURCE.classes))
    rate = learning_rate(schedule.lr_policy, schedule.optimizer.lr, -(-count // batch_size), stage.epochs)
    step = stage_step(network, stage, schedule, Precision("fp32", torch.device("cpu")), PlainStep)
    plan = views.TrainPlan(
        geometry=Geometry(SOURCE.side, stage.upscale), settings=schedule.views, seed=SEED, stage=0, epoch=1
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
    losses, recorded = first_losses(), json.loads(RECORD.read_text())["losses"]
    for k, (ours, theirs) in enumerate(zip(losses, recorded, strict=True)):
        print(f"step {k + 1}: loss {ours:.4f}, recorded {theirs:.4f}")
    if max(abs(a - b) for a, b in zip(losses, recorded, strict=True)) > TOLERANCE:
        raise DataError(
            f"{RECORD}: the first losses differ by more than {TOLERANCE}, expected the same; the renderer, the views "
            "or the schedule changed, so the shipped net should be made again"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
