"""`train --dry-run`: the resolved schedule, and what it will cost here, measured on a few steps of every stage."""

import json
import math
import time

import torch

from fastres import views
from fastres.data.manifest import Manifest
from fastres.data.resident import Batch
from fastres.engine.average import Average, weight_average
from fastres.engine.precision import Precision
from fastres.engine.rehearsal import rehearse
from fastres.engine.stage_step import learning_tensors, stage_step
from fastres.engine.step import EagerStep
from fastres.errors import MachineError
from fastres.geometry import Geometry
from fastres.model.network import Architecture, build
from fastres.report import device_name, peak_memory_gb
from fastres.schedule_types import Schedule, Stage
from fastres.track.console import table

# A CPU trains at nearly the same img/s at any batch, so its probe is small; a GPU needs the real batch to be busy.
CPU_PROBE_BATCH = 16
TIMED_STEPS = {"cpu": 2, "cuda": 20}


def dry_run(schedule: Schedule, manifest: Manifest, precision: Precision, *, as_json: bool) -> int:
    """Print the stages with their measured img/s and expected seconds. Touches neither weights nor run folder."""
    networks = rehearse(schedule, manifest.num_classes, manifest.side)
    rows = [
        _probe(schedule, stage, network, manifest, precision)
        for stage, network in zip(schedule.stages, networks, strict=True)
    ]
    result = {
        "schedule": schedule.to_dict(),
        "device": device_name(precision.device),
        "precision": precision.name,
        "stages": rows,
        "expected_train_s": sum(row["expected_s"] for row in rows),
        "peak_memory_gb": peak_memory_gb(precision.device),
    }
    if as_json:
        print(json.dumps(result))
        return 0
    print(json.dumps(schedule.to_dict(), indent=1))
    print(table([list(row.values()) for row in rows], list(rows[0])))
    print(
        f"expected training time {result['expected_train_s']:.0f} s on {result['device']} in {precision.name}, without "
        f"validation; most memory held by the probe {result['peak_memory_gb']:.1f} GB"
    )
    return 0


def _probe(
    schedule: Schedule, stage: Stage, architecture: Architecture, manifest: Manifest, precision: Precision
) -> dict:
    """Time a few steps of one stage on random images of the data's size, with fresh weights."""
    device, batch_size = precision.device, min(schedule.batch_size, manifest.count("train"))
    if device.type == "cpu":
        batch_size = min(batch_size, CPU_PROBE_BATCH)
    network = build(architecture).to(device, memory_format=torch.channels_last)
    step, average = stage_step(network, stage, schedule, precision), weight_average(network, schedule.ema)
    geometry = Geometry(manifest.side, stage.upscale)
    plan = views.TrainPlan(
        geometry=geometry, settings=schedule.views, seed=0, stage=0, epoch=1, dtype=precision.dtype
    )  # fmt: skip
    rows = torch.arange(batch_size, device=device)
    images = torch.randint(0, 256, (batch_size, manifest.side, manifest.side, 3), dtype=torch.uint8, device=device)
    batch = (images, rows, rows % manifest.num_classes, rows)
    try:
        seconds = _time(step, average, batch, plan, device)
    except torch.cuda.OutOfMemoryError as error:
        raise MachineError(
            f"stage {stage.name}: the GPU's memory is full at batch size {batch_size} after "
            f"{peak_memory_gb(device):.1f} GB; lower it with --set batch_size={batch_size // 2}"
        ) from error
    speed = batch_size / seconds
    return {
        "stage": stage.name, "epochs": stage.epochs, "crop": geometry.crop, "learning": learning_tensors(step),
        "steps": stage.epochs * math.ceil(manifest.count("train") / schedule.batch_size),
        "probe_batch": batch_size, "img_per_s": speed, "expected_s": stage.epochs * manifest.count("train") / speed,
    }  # fmt: skip


def _time(step: EagerStep, average: Average, batch: tuple, plan: views.TrainPlan, device: torch.device) -> float:
    """Seconds per step, after one that warms up."""
    for count in (1, TIMED_STEPS[device.type]):
        started = time.perf_counter()
        for _ in range(count):
            step(Batch(*batch), plan, lr=1e-6)
            average.update()
        step.mean_loss()  # waits for the device
    return (time.perf_counter() - started) / count
