"""What a finished run shows: its summary, its table and its pictures."""

import platform
import resource
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastres import views
from fastres.evaluate import format_errors
from fastres.geometry import Geometry
from fastres.schedule_types import Schedule
from fastres.track import pictures
from fastres.track.console import table
from fastres.track.gauges import wait_pct
from fastres.track.log import read_log
from fastres.track.wandb import NoWandb, WandbMirror
from fastres.views import colour

if TYPE_CHECKING:
    from fastres.run import Run

TRAIN_VIEWS_SHOWN = 16


def summarise(run: "Run", errors: dict, drawn: list[str]) -> dict:
    """summary.json of a finished run: every final error by combination and method, seconds and img/s per stage."""
    log = read_log(run.folder.path / "log.jsonl")
    epochs = [record for record in log if record["event"] == "epoch"]
    train_s, wait_s = (sum(record[name] for record in epochs) for name in ("train_s", "wait_s"))
    return {
        "status": "done",
        "exit_code": 0,
        "schedule": run.schedule.name,
        "seed": run.seed,
        "data": str(run.data_folder),
        "content_digest": run.manifest.content_digest,
        "device": device_name(run.precision.device),
        "processes": run.world.size,
        "precision": run.precision.name,
        "torch": torch.__version__,
        "commits": sorted({record["commit"] for record in log if record.get("commit")}),
        "stages": [_stage_summary(epochs, index, row.name) for index, row in enumerate(run.schedule.stages)],
        "count": len(run.val),
        "errors": errors,
        "train_s": train_s,
        "wait_s": wait_s,
        "data_wait_pct": wait_pct(wait_s, train_s),
        "val_s": sum(record["val_s"] for record in epochs),
        "eval_s": run.clock.seconds["evaluation"],
        "checkpoint_s": run.clock.seconds["checkpoint"],
        "wall_s": time.perf_counter() - run.started,
        "peak_memory_gb": peak_memory_gb(run.precision.device),
        "pictures": drawn,
    }


def _stage_summary(epochs: list[dict], index: int, name: str) -> dict:
    mine = [record for record in epochs if record["stage"] == index]
    train_s, wait_s = (sum(record[name] for record in mine) for name in ("train_s", "wait_s"))
    return {
        "name": name,
        "epochs": len(mine),
        "train_s": train_s,
        "wait_s": wait_s,
        "data_wait_pct": wait_pct(wait_s, train_s),
        "img_per_s": float(np.median([record["img_per_s"] for record in mine])),
        "val_top1_err": mine[-1]["val_top1_err"],
        "val_top5_err": mine[-1]["val_top5_err"],
    }


def headline(summary: dict) -> dict:
    """The figures of a run that a dashboard's table of runs should show."""
    figures = {name: summary[name] for name in ("train_s", "eval_s", "wall_s", "data_wait_pct", "peak_memory_gb")}
    if not summary["errors"]:
        return figures
    best = summary["errors"]["expsum"]["12-crop"]
    return {"final/12crop_top1_err": best["top1"], "final/12crop_top5_err": best["top5"], **figures}


def mirror(summary: dict, schedule: Schedule, wandb: WandbMirror | NoWandb) -> None:
    """What W&B is to show at the end: pictures, the table of crop methods, the figures of its table of runs."""
    for picture in summary["pictures"]:
        wandb.image(f"pictures/{Path(picture).stem}", Path(picture))
    if summary["errors"]:
        wandb.table("final/crop_methods", *crop_table(summary, schedule.expected))
    wandb.summary(headline(summary))


def crop_table(summary: dict, expected: dict[str, float]) -> tuple[list[str], list[list]]:
    """Columns and rows: each way to combine the crops' scores, each crop method, errors in % and the paper's."""
    columns = ["combined by", "crop method", "val top-1 err %", "val top-5 err %", "paper top-1", "paper top-5"]
    rows = [
        [how, method, e["top1"], e["top5"], *(expected.get(f"{method} {top}") if how == "expsum" else None
                                              for top in ("top1", "top5"))]
        for how, methods in summary["errors"].items() for method, e in methods.items()
    ]  # fmt: skip
    return columns, rows


def as_text(summary: dict, schedule: Schedule, folder: Path) -> str:
    """Stages, the error table by crop method with the paper's figures beside it, and where things are."""
    stages = [
        [row["name"], row["epochs"], row["train_s"], round(row["img_per_s"]), row["val_top1_err"], row["val_top5_err"]]
        for row in summary["stages"]
    ]
    lines = [
        table(stages, ["stage", "epochs", "train s", "img/s", "val top-1 err %", "val top-5 err %"]),
        "",
        *_crops_as_text(summary, schedule, folder),
        "",
        f"trained in {summary['train_s']:.0f} s on {summary['device']} in {summary['precision']}",
        *(f"picture {path}" for path in summary["pictures"]),
        f"weights {folder / 'final.safetensors'}",
    ]
    return "\n".join(lines)


def _crops_as_text(summary: dict, schedule: Schedule, folder: Path) -> list[str]:
    if not summary["errors"]:
        return [f"not evaluated with twelve crops (--no-evaluation); python -m fastres.evaluate {folder} does"]
    return [
        format_errors(summary["errors"], "expsum", summary["count"], schedule.expected),
        f"on {summary['count']} validation images; scores of crops combined by summing e^score",
    ]


def draw(run: "Run") -> list[str]:
    """Error by epoch and the first stage's views; the stem was drawn at its surgery. Returns the paths."""
    folder = run.folder.pictures
    epochs = [record for record in read_log(run.folder.path / "log.jsonl") if record["event"] == "epoch"]
    paper = {f"paper, {name.removesuffix(' top1')}": value for name, value in run.schedule.expected.items()
             if name in ("12-crop top1", "centre top1")}  # fmt: skip
    drawn = [pictures.error_curves(epochs, folder / "error_by_epoch.png", paper=paper or None)]
    if (folder / "stem_filters.png").exists():
        drawn.append(folder / "stem_filters.png")
    drawn.append(_draw_views(run, folder / "views.png"))
    return [str(path) for path in drawn]


def draw_stem(before: np.ndarray, after: np.ndarray, folder: Path) -> None:
    pictures.stem_filters(before, after, folder / "stem_filters.png")


def _draw_views(run: "Run", path: Path) -> Path:
    """Training views of a few images and the twelve test views of one, in the first stage's geometry."""
    settings, geometry = run.schedule.views, Geometry(run.manifest.side, run.schedule.stages[0].upscale)
    ids = torch.arange(min(TRAIN_VIEWS_SHOWN, len(run.train)), device=run.train.device)
    # spread over the classes, since images are packed class by class
    ids = ids * (len(run.train) // len(ids))
    train_plan = views.TrainPlan(geometry=geometry, settings=settings, seed=run.seed, stage=0, epoch=1)
    test_plan = views.TestPlan(geometry=geometry, settings=settings, views=views.TWELVE_VIEWS)
    one = ids[len(ids) // 2 :][:1]
    rows, pixels = torch.arange(len(ids), device=ids.device), run.train.pixels(one)
    return pictures.view_sheet(
        views.apply(run.train.pixels(ids), rows, ids, train_plan).cpu().numpy(),
        views.apply(pixels, rows[:1], one, test_plan).cpu().numpy(),
        [view.name for view in views.TWELVE_VIEWS],
        pixels[0].cpu().numpy(), path, colour.MEAN, colour.STD,
    )  # fmt: skip


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with the threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model} ({torch.get_num_threads()} threads)"


def commit() -> str | None:
    """The short hash of the code that runs, with -dirty where files differ from it; None outside its checkout."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        if subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True).returncode:
            return None
        described = [*git, "describe", "--always", "--dirty", "--exclude", "*"]
        return subprocess.run(described, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # no git here, or none that may be run
        return None


def peak_memory_gb(device: torch.device) -> float:
    """Most memory the run held at once, 10^9 bytes: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
