"""Trials of before, kept beside the packed data: the second run on a machine does not measure again.

A file of plain figures, by GPU, torch, stage, batch and number format. Whatever in it is not as written here counts as
never measured, and a file that cannot be written is not missed.
"""

import contextlib
import math
from pathlib import Path

import torch

from fastres.machine import strict_json
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError
from fastres.machine.facts import device_name
from fastres.machine.files import read_regular, write_atomic
from fastres.machine.kept_code import NAME
from fastres.model.network import ResNet, describe
from fastres.schedules.types import Schedule, Stage, ViewSettings
from fastres.stage.choosing.decide import Trial
from fastres.views.geometry import Geometry
from fastres.views.plan import TrainPlan
from fastres.views.triton_blocks import CANDIDATES, Blocks

PLACE = Path(NAME, "steps.json")  # in the packed folder, above the machines' own
LONGEST = 1 << 20  # bytes that are read of it


def key(network: ResNet, stage: Stage, schedule: Schedule, geometry: Geometry, precision: Precision) -> str:
    """All that a step's time depends on, in words: trials of one key may stand for each other."""
    net = describe(network.state_dict())
    return ", ".join(
        [
            device_name(precision.device),
            f"torch {torch.__version__}",
            f"{net.arch} of width {net.width}, {net.classes} classes, stem {net.stem}",
            f"learns {' '.join(stage.train)}, bn {stage.bn}" + (", pulled" if stage.pull else ""),
            f"{geometry.side} to {geometry.crop} pixels, batch {schedule.batch_size}, {precision.name}",
            f"sgd of {schedule.optimizer.impl}",
            *_added(schedule.views),
        ]
    )


def views_key(plan: TrainPlan, device: torch.device) -> str:
    """All that the best blocks of the views kernel depend on, in words."""
    geometry = plan.geometry
    return (
        f"views, {device_name(device)}, torch {torch.__version__}, {geometry.side} to {geometry.crop} pixels, "
        f"{', '.join([plan.convention, *_added(plan.settings)])}, {plan.channels} channels of {plan.dtype}"
    )


def _added(settings: ViewSettings) -> list[str]:
    """What the views have beside the paper's, which has kernels of its own."""
    words = {"resized crops": settings.crop == "resized", "erasing": settings.erasing > 0, "mixed": settings.mixes}
    return [word for word, there in words.items() if there]


def recall_blocks(file: Path, name: str) -> Blocks | None:
    """What `keep_blocks` kept, if it is a candidate still."""
    kept = _read(file).get(name)
    return next((blocks for blocks in CANDIDATES if kept == list(blocks)), None)


def keep_blocks(file: Path, name: str, blocks: Blocks) -> None:
    _write(file, name, list(blocks))


def recall(file: Path, name: str) -> dict[str, Trial]:
    """The trials kept in `file` under the key `name`, by kind; none without eager's, which the others are beside."""
    kept = _read(file).get(name)
    found = {kind: _trial(figures) for kind, figures in kept.items()} if isinstance(kept, dict) else {}
    return {kind: trial for kind, trial in found.items() if trial is not None} if found.get("eager") else {}


def keep(file: Path, name: str, trials: dict[str, Trial]) -> None:
    """Put the trials that ran under the key `name`: one that failed may run another day. Where nothing can be written,
    the next run measures again."""
    _write(file, name, {kind: [t.step_s, t.cold_s] for kind, t in trials.items() if t.step_s is not None})


def _write(file: Path, name: str, figures: object) -> None:
    with contextlib.suppress(MachineError, OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(file, (strict_json.dumps(_read(file) | {name: figures}, indent=1) + "\n").encode())


def _trial(figures: object) -> Trial | None:
    """[seconds a step, seconds until the first], or None for anything else."""
    if not isinstance(figures, list) or len(figures) != 2:
        return None
    numbers = all(type(s) in (int, float) and math.isfinite(s) and s > 0 for s in figures)
    return Trial(*figures) if numbers else None


def _read(file: Path) -> dict:
    try:
        found = strict_json.loads(read_regular(file, LONGEST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
