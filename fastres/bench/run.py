"""A whole schedule from a cold start, one process a seed: wall time, where it went, img/s per stage, final errors.

    python -m fastres.bench run --schedule demo --data packed-small-world --seeds 3 --record runs/

With --record a dated folder holds the raw summaries, the table, a chart and the pictures of the first seed, and
results.csv gets one row a seed.
"""

import argparse
import csv
import io
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastres.bench import harness, output, step_floor
from fastres.data.engines import ENGINES
from fastres.data.manifest import load_manifest
from fastres.engine.precision import choose_device
from fastres.errors import MachineError, UsageError
from fastres.files import write_atomic
from fastres.geometry import Geometry
from fastres.model.network import Architecture
from fastres.schedule_loading import load_schedule, override
from fastres.schedule_types import Schedule
from fastres.track.console import say, table

COLUMNS = (
    "date", "commit", "schedule", "engine", "seed", "device", "precision", "torch", "triton", "train_s", "cold_s",
    "eval_s", "pack_s", "img_per_s",
    *(f"{k}_err_{m}" for m in ("full", "centre", "10-crop", "12-crop") for k in ("top1", "top5")),
)  # fmt: skip

# (what trains, upscale) of a stage -> the kind that `bench steps` and the floor know it as
KIND_OF = {(("fc.*",), 4): "fc", (("conv1.*",), 1): "conv1", (("*",), 4): "full", (("*",), 1): "full-small"}


def main(argv: list[str] | None = None) -> int:
    """`python -m fastres.bench run`: train, then print, --json, --record."""
    p = argparse.ArgumentParser(
        prog="python -m fastres.bench run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--schedule", default="paper", metavar="NAME|FILE.py")
    p.add_argument("--data", type=Path, default=Path("packed"), metavar="DIR")
    p.add_argument("--pack", metavar="SOURCE", help="pack this tree or zip first, time it (pack_s), and train from it")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default 1)")
    p.add_argument("--engine", choices=tuple(ENGINES), default="resident", help="passed on to train")
    p.add_argument("--device", default="auto")
    p.add_argument("--precision", default="auto")
    p.add_argument("--set", action="append", default=[], metavar="A.B=C", help="passed on to train")
    p.add_argument("--weights", metavar="FILE", help="passed on to train")
    p.add_argument("--json", type=Path, metavar="FILE", help="write {machine, rows, ratios} here")
    p.add_argument("--record", type=Path, metavar="DIR", help="write a dated folder and rows of results.csv here")
    args = p.parse_args(argv)
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds}: expected 1 or more")
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as scratch:
        pack_s = _pack(args, Path(scratch) / "packed") if args.pack else None
        folders = [Path(scratch) / f"seed{seed}" for seed in range(args.seeds)]
        summaries, faults = _train_all(args, folders)
        command = ["python", "-m", "fastres.bench", "run", *(sys.argv[2:] if argv is None else argv)]
        rows = [{**summary, "pack_s": pack_s} for summary in summaries]
        result = {"command": shlex.join(command), "machine": harness.machine(device), "rows": rows, "ratios": {}}
        if rows:
            _show(args, result, folders[rows[0]["seed"]])
    if faults:
        raise MachineError(f"{'; '.join(faults)}: see the messages above; what did finish is kept")
    return 0


def _show(args, result: dict, first: Path) -> None:
    text = as_table(result)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.record:
        _record(args, result, text, first)


def _pack(args, folder: Path) -> float:
    """Pack args.pack into `folder`, which args.data then names; seconds from the command's start to its end."""
    script = Path(__file__).parents[2] / "preprocess" / "pack.py"
    command = [sys.executable, str(script), "--source", args.pack, "--out", str(folder), "--engines", args.engine]
    say(f"packing {args.pack}")
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise MachineError(f"packing {args.pack} ended with exit code {done.returncode}: see its message above")
    args.data = folder
    return time.perf_counter() - started


def _train_all(args, folders: list[Path]) -> tuple[list[dict], list[str]]:
    """Summaries of the seeds that finish, and one line for each that does not."""
    summaries, faults = [], []
    for seed, folder in enumerate(folders):
        try:
            summaries.append(_train(args, seed, folder))
        except MachineError as fault:
            say(str(fault))
            faults.append(str(fault).partition(":")[0])
    return summaries, faults


def _train(args, seed: int, folder: Path) -> dict:
    """One run in a process of its own; its summary and the wall time of everything, imports included."""
    say(f"{args.schedule}, seed {seed}")
    command = [
        sys.executable, "-m", "fastres.train", "--schedule", args.schedule, "--data", str(args.data), "--run-dir",
        str(folder), "--seed", str(seed), "--engine", args.engine, "--device", args.device,
        "--precision", args.precision, "--wandb", "off", "--json", *(f"--set={setting}" for setting in args.set),
        *(["--weights", args.weights] if args.weights else []),
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise MachineError(f"the run of seed {seed} ended with exit code {done.returncode}: see its message above")
    summary = json.loads(done.stdout.splitlines()[-1])
    del summary["pictures"]  # in a scratch folder that goes; the first seed's are copied into the record
    return {**summary, "engine": args.engine, "cold_s": time.perf_counter() - started}


def as_table(result: dict) -> str:
    """Stages and errors of every seed, and where the wall time went, as markdown-free text."""
    rows, shares = [], []
    for summary in result["rows"]:
        errors = summary["errors"]["expsum"]
        rows.append([summary["seed"], *(errors[m]["top1"] for m in errors), errors["12-crop"]["top5"],
                     summary["train_s"], summary["cold_s"]])  # fmt: skip
        spent = [summary[name] for name in ("train_s", "val_s", "eval_s", "checkpoint_s")]
        waited = 100 * summary["wait_s"] / summary["train_s"]
        rest = summary["cold_s"] - sum(spent)
        shares.append([summary["seed"], *(100 * part / summary["cold_s"] for part in (*spent, rest)), waited])
    methods = [f"top-1 {m}" for m in result["rows"][0]["errors"]["expsum"]]
    stages = [[s["name"], s["epochs"], s["train_s"], round(s["img_per_s"]), 100 * s["wait_s"] / s["train_s"],
               s["val_top1_err"]] for s in result["rows"][0]["stages"]]  # fmt: skip
    return "\n\n".join([
        table(stages, ["stage, first seed", "epochs", "train s", "img/s", "waits for data %", "val top-1 err %"]),
        table(rows, ["seed", *methods, "top-5 12-crop", "train s", "cold s"]),
        table(shares, ["% of cold wall", "training", "validation", "12-crop", "checkpoints", "start, data, pictures",
                       "of training: waits for data"]),
    ])  # fmt: skip


def _record(args, result: dict, text: str, first: Path) -> None:
    folder = output.record_folder(args.record, result["rows"][0]["schedule"], result["machine"])
    (folder / "run.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "table.md").write_text(f"`{result['command']}`\n\n```\n{text}\n```\n")
    schedule = override(load_schedule(args.schedule), args.set)
    output.chart(as_bars(result, schedule, load_manifest(args.data).side), folder / "chart.png")
    for picture in sorted((first / "pictures").glob("*.png")):
        shutil.copy(picture, folder / picture.name)
    add_rows(args.record / "results.csv", result)
    print(f"recorded in {folder}")


def as_bars(result: dict, schedule: Schedule, side: int) -> dict:
    """img/s of every stage, the median over seeds, for output.chart: beside the floor where one is known."""
    rows, floors, gpu = [], {}, result["machine"]["gpu"]
    precision = result["rows"][0]["precision"]
    for index, stage in enumerate(schedule.stages):
        mode = f"stage {index + 1}, {stage.name}: {stage.epochs} epochs, crop {Geometry(side, stage.upscale).crop}"
        speed = statistics.median(summary["stages"][index]["img_per_s"] for summary in result["rows"])
        rows.append({"mode": mode, "name": schedule.name, "dtype": precision, "ours": True, "img_per_s": speed})
        kind = KIND_OF.get((stage.train, stage.upscale), "")
        floors[mode] = step_floor.images_per_second(kind, Architecture(schedule.arch, schedule.width, 0), side,
                                                    precision, gpu)  # fmt: skip
    return {
        "rows": rows, "floors": {mode: floor for mode, floor in floors.items() if floor},
        "floor_note": step_floor.note(all(floors.values()), gpu),
    }  # fmt: skip


def add_rows(path: Path, result: dict) -> None:
    """Append one row a seed to results.csv. Rows from before a column was added have nothing in it."""
    machine = result["machine"]
    earlier = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(earlier)
    for summary in result["rows"]:
        images = sum(stage["img_per_s"] * stage["train_s"] for stage in summary["stages"])
        errors = {
            f"{k}_err_{method}": round(figures[k], 3)
            for method, figures in summary["errors"]["expsum"].items()
            for k in ("top1", "top5")
        }
        writer.writerow({
            **{column: summary.get(column) for column in COLUMNS}, **errors, "date": machine["date"],
            "commit": machine["commit"], "triton": machine["libraries"]["triton"],
            "img_per_s": round(images / summary["train_s"]),
            **{name: round(summary[name], 1) for name in ("train_s", "cold_s", "eval_s")},
            "pack_s": "" if summary["pack_s"] is None else round(summary["pack_s"], 1),
        })  # fmt: skip
    write_atomic(path, file.getvalue().encode())


def readme_table(path: Path) -> str:
    """The README's results: one row a schedule, engine, machine, precision and commit; mean and spread over seeds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("date", "commit", "schedule", "engine", "device", "precision")
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    lines = [
        "| schedule | machine | seeds | val top-1 err %, 12-crop | centre | top-5 12-crop | train s | cold s | img/s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (date, commit, schedule, engine, device, precision), group in groups.items():
        cells = [_spread(group, column) for column in ("top1_err_12-crop", "top1_err_centre", "top5_err_12-crop")]
        cells += [f"{_mean(group, column):,.0f}" for column in ("train_s", "cold_s", "img_per_s")]
        where = f"{device}, {'' if engine == 'resident' else engine + ', '}{precision}, {date}, {commit}"
        lines.append(f"| `{schedule}` | {where} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(group: list[dict], column: str) -> float:
    return statistics.mean(float(row[column]) for row in group)


def _spread(group: list[dict], column: str) -> str:
    spread = statistics.stdev(float(row[column]) for row in group) if len(group) > 1 else None
    return f"{_mean(group, column):.1f}" + ("" if spread is None else f" ± {spread:.1f}")
