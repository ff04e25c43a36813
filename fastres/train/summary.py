"""What a finished run says of itself: its summary, as data and as text."""

import os
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from fastres.data.described import describe, is_own
from fastres.evaluate.gate import Gate
from fastres.evaluate.mistake_files import as_text as mistakes_as_text
from fastres.machine.console import table
from fastres.machine.errors import DataError
from fastres.machine.facts import device_name, peak_memory_gb
from fastres.stage.setting import Setting
from fastres.stage.speed import wait_pct
from fastres.track.error_table import format_errors
from fastres.track.metrics import FINAL_TOP1, FINAL_TOP5
from fastres.track.mistakes import FOLDER, damaged, read_mistakes


def summarise(setting: Setting, log: list[dict], errors: dict, drawn: list[str], seconds: dict[str, float]) -> dict:
    """summary.json of a finished run: every final error by combination and method, seconds and img/s per stage.

    log      every record of log.jsonl
    drawn    paths of the pictures
    seconds  eval_s, checkpoint_s, wall_s: of all processes of the run, one after the other; the first two of the last
    """
    epochs = [record for record in log if record["event"] == "epoch"]
    train_s, wait_s = (sum(record[name] for record in epochs) for name in ("train_s", "wait_s"))
    schedule, device = setting.schedule, setting.precision.device
    return {
        "status": "done",
        "exit_code": 0,
        "schedule": schedule.name,
        "seed": setting.seed,
        "data": os.path.abspath(setting.packed),
        "dataset": describe(setting.manifest),
        "own_data": is_own(setting.manifest),
        "content_digest": setting.manifest.content_digest,
        "device": device_name(device),
        "processes": setting.world.size,
        "precision": setting.precision.name,
        "torch": torch.__version__,
        "commits": sorted({record["commit"] for record in log if record.get("commit")}),
        "stages": [_stage_summary(epochs, index, row.name) for index, row in enumerate(schedule.stages)],
        "count": len(setting.val),
        "expected": schedule.expected,
        "errors": errors,
        "train_s": train_s,
        "wait_s": wait_s,
        "data_wait_pct": wait_pct(wait_s, train_s),
        "val_s": sum(record["val_s"] for record in epochs),
        **seconds,
        "peak_memory_gb": peak_memory_gb(device),
        "pictures": drawn,
    }


def wall_before(log: list[dict]) -> float:
    """Seconds of a run's earlier processes, each from its start to the last of its records that the log has: what was
    done after the checkpoint where the next one went on is cut off, and done again."""
    starts = [number for number, record in enumerate(log) if record["event"] == "start"]
    spans = [(log[first], log[after - 1]) for first, after in pairwise(starts)]
    times = [(_time(first), _time(last)) for first, last in spans]
    return sum((last - first).total_seconds() for first, last in times if first and last)


def _time(record: dict) -> datetime | None:
    """None where somebody changed it to what is no time: these are only seconds."""
    try:
        found = datetime.fromisoformat(record["time"])
        return found if found.tzinfo else None
    except (KeyError, TypeError, ValueError):
        return None


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
    return {FINAL_TOP1: best["top1"], FINAL_TOP5: best["top5"], **figures}


def of_finished(folder: Path, summary: dict) -> dict:
    """`summary` as a finished run's summary.json has it; DataError where it is none that a run wrote."""
    try:
        as_text(summary, folder)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{folder / 'summary.json'}: is incomplete or altered ({error!r}); remove it, and the same command writes "
            "it again"
        ) from None
    return summary


def as_text(summary: dict, folder: Path) -> str:
    """Stages, the error table by crop method with the paper's figures beside it, and where things are.

    Of one's own data the errors by class come first.
    """
    stages = [
        [row["name"], row["epochs"], row["train_s"], round(row["img_per_s"]), row["val_top1_err"], row["val_top5_err"]]
        for row in summary["stages"]
    ]
    lines = [
        *(_classes_as_text(folder) if summary.get("own_data") else ()),
        table(stages, ["stage", "epochs", "train s", "img/s", "val top-1 err %", "val top-5 err %"]),
        "",
        *_crops_as_text(summary, folder),
        "",
        f"trained in {summary['train_s']:.0f} s on {summary['device']} in {summary['precision']}",
        *(f"picture {path}" for path in summary["pictures"]),
        *([f"each answer, errors by class, confusions: {folder / FOLDER}"] if (folder / FOLDER).is_dir() else []),
        f"weights {folder / 'final.safetensors'}",
    ]
    return "\n".join(lines)


def _classes_as_text(folder: Path) -> list[str]:
    """The classes with the largest errors and the commonest confusions; why not where the file is damaged."""
    try:
        found = read_mistakes(folder)
        return [] if found is None else [mistakes_as_text(found), ""]
    except DataError as fault:
        said = fault
    except (KeyError, TypeError, AttributeError) as error:
        said = damaged(folder, error)
    return [f"errors by class are not shown: {said}", ""]


def _crops_as_text(summary: dict, folder: Path) -> list[str]:
    if not summary["errors"]:
        return [f"not evaluated with twelve crops (--no-evaluation); python -m fastres.evaluate {folder} does"]
    of_what = f" of {summary['dataset']}" if "dataset" in summary else ""  # not in those of older versions
    gate = Gate.of(summary)
    return [
        format_errors(summary["errors"], "expsum", summary["count"], summary.get("expected")),
        f"on {summary['count']} validation images{of_what}; scores of crops combined by summing e^score",
        *([f"{gate.as_text()} (--gate)"] if gate else []),
    ]
