"""`train --dry-run`: the resolved schedule, and what it will cost here, measured on a few steps of every stage."""

import math
import os
import time
from collections.abc import Callable

import torch

from fastres import views
from fastres.data.batch import Batch
from fastres.data.manifest import Manifest
from fastres.machine import strict_json
from fastres.machine.console import table
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError
from fastres.machine.facts import device_name, peak_memory_gb
from fastres.machine.gpu import is_full
from fastres.machine.waiting import taken_by_others
from fastres.model.flop import training_flop
from fastres.model.fold import StageNetwork
from fastres.model.network import Architecture, ResNet, build
from fastres.schedules.types import Schedule, Stage
from fastres.stage.average import Average, weight_average
from fastres.stage.rehearsal import rehearse
from fastres.stage.stage_step import learning_tensors, stage_step
from fastres.stage.step import EagerStep
from fastres.views import TWELVE_VIEWS
from fastres.views.geometry import Geometry

# Arithmetic of a step that a CPU's probe may take, about a second of two cores: small networks are timed at their own
# batch, large ones at no less than LEAST_BATCH images, where img/s hardly depend on it. A GPU needs its own batch.
CPU_PROBE_FLOP, LEAST_BATCH = 3e10, 16
CPU_SECONDS, GPU_STEPS = 0.4, 20
BUSY = 0.2  # of the machine's cores that others use: from there on it is said


def dry_run(schedule: Schedule, manifest: Manifest, precision: Precision) -> dict:
    """The stages with their measured img/s and the seconds expected of training and validation, those of the whole run,
    and how busy the machine was. Touches neither weights nor run folder."""
    cores = os.cpu_count() or 1
    others = taken_by_others()
    networks = rehearse(schedule, manifest.num_classes, manifest.side, wnids=manifest.wnids)
    rows = [
        _probe(schedule, stage, network, manifest, precision)
        for stage, network in zip(schedule.stages, networks, strict=True)
    ]
    return {
        "schedule": schedule.to_dict(),
        "device": device_name(precision.device),
        "precision": precision.name,
        "stages": rows,
        "expected_train_s": sum(row["expected_s"] for row in rows),
        "expected_val_s": sum(row["validation_s"] for row in rows),
        "expected_eval_s": len(TWELVE_VIEWS) * rows[-1]["validation_s"] / schedule.stages[-1].epochs,
        "load_per_core": round(others / cores, 2),
        "peak_memory_gb": peak_memory_gb(precision.device),
    }


def show(result: dict, *, as_json: bool) -> int:
    """Print what `dry_run` returned."""
    if as_json:
        print(strict_json.dumps(result))
        return 0
    rows = result["stages"]
    print(strict_json.dumps(result["schedule"], indent=1))
    print(table([list(row.values()) for row in rows], list(rows[0])))
    parts = {"training": "train", "validation": "val", "the twelve views at the end": "eval"}
    seconds = {what: result[f"expected_{name}_s"] for what, name in parts.items()}
    print(
        f"expected time {sum(seconds.values()):.0f} s on {result['device']} in {result['precision']} "
        f"({', '.join(f'{what} {part:.0f} s' for what, part in seconds.items())}); most memory held by the probe "
        f"{result['peak_memory_gb']:.1f} GB"
    )
    if result["load_per_core"] > BUSY:
        busy = f"{result['load_per_core']:.0%} of this machine's cores"
        print(f"other work was using {busy}: idle, it may be several times as fast")
    return 0


def _probe(
    schedule: Schedule, stage: Stage, architecture: Architecture, manifest: Manifest, precision: Precision
) -> dict:
    """Time a few steps of one stage on random images of the data's size, with fresh weights."""
    device, batch_size = precision.device, min(schedule.batch_size, manifest.count("train"))
    geometry = Geometry(manifest.side, stage.upscale, stage.whole)
    if device.type == "cpu":
        affordable = int(CPU_PROBE_FLOP / training_flop(architecture, stage.train, geometry.crop))
        batch_size = min(batch_size, max(LEAST_BATCH, affordable))
    network = build(architecture).to(device, memory_format=torch.channels_last)
    step, average = stage_step(network, stage, schedule, precision), weight_average(network, schedule.ema)
    plan = views.TrainPlan(geometry=geometry, settings=schedule.views, seed=0, stage=0, epoch=1, dtype=precision.dtype)
    rows = torch.arange(batch_size, device=device)
    images = torch.randint(0, 256, (batch_size, manifest.side, manifest.side, 3), dtype=torch.uint8, device=device)
    batch = (images, rows, rows % manifest.num_classes, rows)
    try:
        seconds = _time(lambda: _train(step, average, batch, plan), device)
        one_view = _time(_validation(network, batch, plan, precision), device) / batch_size
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise MachineError(
            f"stage {stage.name}: the GPU's memory is full at batch size {batch_size} after "
            f"{peak_memory_gb(device):.1f} GB; lower it with --set batch_size={schedule.half_a_batch}"
        ) from error
    speed = batch_size / seconds
    return {
        "stage": stage.name,
        "epochs": stage.epochs,
        "crop": geometry.crop,
        "learning": learning_tensors(step),
        "steps": stage.epochs * math.ceil(manifest.count("train") / schedule.batch_size),
        "probe_batch": batch_size,
        "img_per_s": speed,
        "expected_s": stage.epochs * manifest.count("train") / speed,
        "validation_s": stage.epochs * manifest.count("val") * one_view,
    }


def _train(step: EagerStep, average: Average, batch: tuple, plan: views.TrainPlan) -> None:
    step(Batch(*batch), plan, lr=1e-6)
    average.update()


def _validation(
    network: ResNet, batch: tuple, plan: views.TrainPlan, precision: Precision
) -> Callable[[], torch.Tensor]:
    """What scores the centre views of a batch."""
    form = StageNetwork(network, plan.dtype, inference=True).eval()
    images, rows, _, ids = batch
    centre = views.TestPlan(geometry=plan.geometry, settings=plan.settings, dtype=plan.dtype)

    @torch.no_grad()
    def score() -> torch.Tensor:
        with precision.autocast():
            return form(views.apply(images, rows, ids, centre))

    return score


def _time(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one `work`, after one that warms up."""
    work()
    _wait(device)
    started, count = time.perf_counter(), 0
    while not count or (count < GPU_STEPS if device.type == "cuda" else time.perf_counter() - started < CPU_SECONDS):
        work()
        count += 1
    _wait(device)
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
