"""The study's small world: its data packed, a 50-layer net pretrained once, and every system's counterpart on it."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import fastres
from fastres.errors import FastresError, MachineError
from fastres.schedule_file import write_schedule
from fastres.schedule_types import Schedule
from fastres.schedules import SMALL_WORLD_PRETRAIN_50, small_world
from fastres.study.work import Launch
from fastres.track.console import say

# Of the 15 epochs that the 18-layer net had: its 50 layers are four times as slow on a CPU, and this is one row. Half
# the batch at half the rate, for twice the steps.
EPOCHS_50 = 4
BATCH_50, LR_50 = 32, 0.05


def counterparts(schedules: list[Schedule], scale: float, weights: Mapping[str, str]) -> list[Schedule]:
    """Every system on the small world; `weights`: pretrained files by architecture."""
    return [small_world(schedule, scale, weights=weights) for schedule in schedules]


def needs_50(schedules: list[Schedule]) -> bool:
    """Whether any of them starts from a pretrained 50-layer net."""
    return any(schedule.arch == "resnet50" and schedule.weights is not None for schedule in schedules)


def pack(out: Path, part: str) -> Path:
    """Render and pack a part of the world (study or source) into `out`, by preprocess/pack.py. Returns `out`."""
    script = Path(fastres.__file__).parents[1] / "preprocess" / "pack.py"
    if not script.is_file():
        raise MachineError(f"{script}: not there; run the study from a checkout of the project, which has preprocess/")
    say(f"packing the small world's {part} into {out}")
    command = [sys.executable, str(script), "--small-world", part, "--out", str(out), "--engines", "resident"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise _fault(done.returncode, done.stderr.strip().splitlines()[-1:] or ["no message"])
    return out


def pretraining_50(scale: float) -> Schedule:
    """How the 50-layer net is made for a study of this scale."""
    stage = replace(SMALL_WORLD_PRETRAIN_50.stages[0], epochs=max(1, round(EPOCHS_50 * scale)))
    optimizer = replace(SMALL_WORLD_PRETRAIN_50.optimizer, lr=LR_50)
    return replace(SMALL_WORLD_PRETRAIN_50, stages=(stage,), batch_size=BATCH_50, optimizer=optimizer)


def note_50(scale: float) -> str:
    """What a reader must know of the 50-layer row."""
    had = SMALL_WORLD_PRETRAIN_50.epochs
    return (f"feature-extractor-50: its 50-layer net was pretrained for {pretraining_50(scale).epochs} epochs of the "
            f"source world, the shipped 18-layer net for {had}; the row compares these two nets, not 50 layers with 18")


def net_50(cache: Path, scale: float, options: list[str], launch: Launch) -> Path:
    """A slim 50-layer net trained on the source world, made once for each world and scale. Returns its weights.

    `options`: --device and --precision. The 18,000 source images (0.9 GB packed) are removed once it is there.
    """
    from fastres.small_world import SOURCE
    from fastres.small_world.tree import RECIPE

    schedule = pretraining_50(scale)
    made_of = json.dumps([RECIPE, asdict(SOURCE), schedule.to_dict()], sort_keys=True)
    folder = cache / f"resnet50-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    weights, source = folder / "run" / "final.safetensors", folder / "source"
    if not weights.exists():
        pack(source, "source")
        file = write_schedule(folder / "schedule.py", schedule, "The study's 50-layer net on the small world's source.")
        say(f"pretraining a slim 50-layer net, {schedule.epochs} epochs; once, it stays in {folder}")
        arguments = ["--schedule", str(file), "--data", str(source), "--run-dir", str(folder / "run"), "--wandb", "off"]
        code = launch([*arguments, *options], folder / "output.txt", lambda: None)
        if code:
            raise _fault(code, (folder / "output.txt").read_text().strip().splitlines()[-1:])
    shutil.rmtree(source, ignore_errors=True)
    return weights


def _fault(code: int, lines: list[str]) -> FastresError:
    """The sentence and the exit code of a command of ours that failed."""
    fault = FastresError("".join(lines).removeprefix("error: "))
    fault.exit_code = code if code > 0 else MachineError.exit_code
    return fault
