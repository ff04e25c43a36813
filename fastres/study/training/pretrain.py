"""The quarter-size study's beginnings: both halves of the data set packed, its nets pretrained on one of them."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fastres.data.manifest import load_manifest
from fastres.machine.console import Progress, say
from fastres.machine.errors import Preempted, UsageError
from fastres.machine.processes.signals import StopRequest
from fastres.model.target import WEIGHTS
from fastres.schedules.quarter import SOURCE, TASK, TASK_SIDE
from fastres.schedules.types import Schedule
from fastres.schedules.writing import write_schedule
from fastres.study.training.launch import Start
from fastres.study.training.task import last_words
from fastres.study.training.world import fault_of, pack
from fastres.track.log import read_log
from fastres.track.run_config import as_written, read_object
from fastres.track.run_dir import live_process
from fastres.train.options import Options

POLL_S = 0.5


def pack_halves(out: Path, source: Path) -> tuple[Path, Path]:
    """The half that nets are pretrained on, and the task's, from the whole data set at `source`; packed folders."""
    halves = out / "source", out / "task"
    pack(halves[0], "the half of the classes to pretrain on", "--source", str(source), "--classes", SOURCE)
    pack(halves[1], "the task's half, at a quarter of its size", "--source", str(source), "--classes", TASK, "--side",
         str(TASK_SIDE))  # fmt: skip
    return halves


def net_files(out: Path, architectures: Iterable[str]) -> dict[str, str]:
    """Where each pretrained net is, or will be, by architecture."""
    return {arch: str((out / "nets" / arch / WEIGHTS).resolve()) for arch in architectures}


def pretrain(out: Path, schedule: Schedule, options: Callable[..., Options], start: Start) -> str:
    """Train a net on the source half, or the rest of it; one sentence on how good it is there.

    `options`: makes a run; the source's packed folder, device and the like are in it already. A run's own fault where
    it fails, Preempted after a signal: the same command goes on.
    """
    arch, folder = schedule.arch, out / "nets" / schedule.arch
    run = options(schedule=schedule, run_dir=folder, wandb="off")
    if not _summary(folder):
        say(f"pretraining {arch} on {load_manifest(run.data).num_classes} classes: {schedule.epochs} epochs")
        file = out / "schedules" / f"{schedule.name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_schedule(file, schedule, f"The pretrained {arch} of the study in {out}.")
        output = out / "output" / f"{schedule.name}.txt"
        while live_process(folder):  # of a study that was killed: it still saves
            time.sleep(POLL_S)
        _follow(schedule, folder, start("fastres.train", run.command_line(file), output, None), output)
    errors = _summary(folder)["errors"]["expsum"]
    return (
        f"the pretrained {arch} (`{schedule.name}`, epochs: {schedule.epochs}) "
        f"errs on {errors['centre']['top1']:.1f} % of its own classes' "
        f"validation images by the centre crop, on {errors['12-crop']['top1']:.1f} % by twelve"
    )


def _summary(folder: Path) -> dict | None:
    """Of a run that is done."""
    summary = read_object(folder / "summary.json", "remove it, and the same command writes it again") or {}
    return summary if summary.get("status") == "done" else None


def refuse_other_epochs(out: Path, schedule: Schedule) -> None:
    """UsageError for a net, done or begun, that was pretrained for other epochs than --net-scale or --scale says."""
    folder = out / "nets" / schedule.arch
    config = read_object(folder / "config.json", "train into another --out")
    if config is None:
        return
    with as_written(folder):
        made = sum(stage["epochs"] for stage in config["schedule"]["stages"])
    if made != schedule.epochs:
        raise UsageError(
            f"{folder}: holds a net pretrained for {made} epochs, expected the {schedule.epochs} of this --scale; use "
            "the --net-scale that made it, or another --out"
        )


def _epochs(folder: Path) -> int:
    """Epochs that the run has behind it."""
    return sum(record["event"] == "epoch" for record in read_log(folder / "log.jsonl"))


def _follow(schedule: Schedule, folder: Path, child, output: Path) -> None:
    """Until the run is over: its epochs on a bar, a signal handed on."""
    with (
        Progress(schedule.epochs, schedule.name, "epoch", done=_epochs(folder), lines=True) as progress,
        StopRequest() as stop,
    ):
        asked = False
        while (code := child.poll()) is None:
            if stop.requested and not asked:
                child.stop()
                asked = True
            time.sleep(POLL_S)
            progress.at(_epochs(folder), schedule.epochs)
        if code == Preempted.exit_code:
            raise Preempted("stopped by a signal while a net was pretrained; the same command goes on there")
        if code:
            raise fault_of(code, [f"{schedule.name}: {last_words(output, code)}"])
