"""A whole schedule from a cold start, one process a seed: wall time, where it went, img/s per stage, final errors.

    python -m fastres.bench run --schedule demo --data packed-small-world --seeds 3 --record runs/

With --record a dated folder holds the raw summaries, the table, a chart and the pictures of the first seed, and
results.csv gets one row a seed.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastres.bench import output, step_floor
from fastres.bench.results import add_rows
from fastres.data.described import is_rendered
from fastres.data.engines import ENGINES
from fastres.data.manifest import load_manifest
from fastres.machine import facts, strict_json
from fastres.machine.arguments import place
from fastres.machine.console import say, table
from fastres.machine.device import CHOICES, choose_device
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.kept_code import CACHES
from fastres.model.network import Architecture
from fastres.schedules.loading import load_schedule, override
from fastres.schedules.types import Schedule
from fastres.track.mistakes import FOLDER, WORST
from fastres.track.record import record_folder
from fastres.views.geometry import Geometry

CLASSES = 200  # of the floor's head, whose share is a thousandth
SHOW_IMAGES = ("views.png", WORST)  # pictures of a run with images of its data in them


def main(argv: list[str] | None = None) -> int:
    """`python -m fastres.bench run`: train, then print, --json, --record."""
    p = argparse.ArgumentParser(
        prog="python -m fastres.bench run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--schedule", default="paper", metavar="NAME|FILE.py")
    p.add_argument("--data", type=place, default=Path("packed"), metavar="DIR")
    p.add_argument("--pack", metavar="SOURCE", help="pack this tree or zip first, time it (pack_s), and train from it")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default 1)")
    p.add_argument("--engine", choices=tuple(ENGINES), default="resident", help="passed on to train")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument("--set", action="extend", nargs="+", default=[], metavar="A.B=C", help="passed on to train")
    p.add_argument("--weights", metavar="FILE", help="passed on to train")
    p.add_argument("--json", type=place, metavar="FILE", help="write {machine, rows, ratios} here")
    p.add_argument("--record", type=place, metavar="DIR", help="write a dated folder and rows of results.csv here")
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
        result = {"command": shlex.join(command), "machine": facts.machine(device), "rows": rows, "ratios": {}}
        if rows:
            _show(args, result, folders[rows[0]["seed"]])
    if faults:
        raise MachineError(f"{'; '.join(faults)}: see the messages above; what did finish is kept")
    return 0


def _show(args, result: dict, first: Path) -> None:
    text = as_table(result)
    print(text)
    if args.json:
        args.json.write_text(strict_json.dumps(result, indent=1) + "\n")
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
        sys.executable,
        "-m",
        "fastres.train",
        "--schedule",
        args.schedule,
        "--data",
        str(args.data),
        "--run-dir",
        str(folder),
        "--seed",
        str(seed),
        "--engine",
        args.engine,
        "--device",
        args.device,
        "--precision",
        args.precision,
        "--wandb",
        "off",
        "--json",
        *(f"--set={setting}" for setting in args.set),
        *(["--weights", args.weights] if args.weights else []),
    ]
    # a cold start compiles: it does not find what an earlier run has left beside the data
    empty = {name: str(folder.parent / "compiled" / folder.name / name) for name in CACHES}
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**empty, **os.environ})
    if done.returncode:
        raise MachineError(f"the run of seed {seed} ended with exit code {done.returncode}: see its message above")
    summary = json.loads(done.stdout.splitlines()[-1])
    del summary["pictures"]  # in a scratch folder that goes; the first seed's are copied into the record
    del summary["data"]  # a path of this machine
    return {**summary, "engine": args.engine, "cold_s": time.perf_counter() - started}


def as_table(result: dict) -> str:
    """Stages and errors of every seed, and where the wall time went, as markdown-free text."""
    rows, shares = [], []
    for summary in result["rows"]:
        errors = summary["errors"]["expsum"]
        rows.append(
            [
                summary["seed"],
                *(errors[m]["top1"] for m in errors),
                errors["12-crop"]["top5"],
                summary["train_s"],
                summary["cold_s"],
            ]
        )
        spent = [summary[name] for name in ("train_s", "val_s", "eval_s", "checkpoint_s")]
        waited = 100 * summary["wait_s"] / summary["train_s"]
        rest = summary["cold_s"] - sum(spent)
        shares.append([summary["seed"], *(100 * part / summary["cold_s"] for part in (*spent, rest)), waited])
    methods = [f"top-1 {m}" for m in result["rows"][0]["errors"]["expsum"]]
    stages = [
        [
            s["name"],
            s["epochs"],
            s["train_s"],
            round(s["img_per_s"]),
            100 * s["wait_s"] / s["train_s"],
            s["val_top1_err"],
        ]
        for s in result["rows"][0]["stages"]
    ]
    return "\n\n".join(
        [
            table(stages, ["stage, first seed", "epochs", "train s", "img/s", "waits for data %", "val top-1 err %"]),
            table(rows, ["seed", *methods, "top-5 12-crop", "train s", "cold s"]),
            table(
                shares,
                [
                    "% of cold wall",
                    "training",
                    "validation",
                    "12-crop",
                    "checkpoints",
                    "start, data, pictures",
                    "of training: waits for data",
                ],
            ),
        ]
    )


def _record(args, result: dict, text: str, first: Path) -> None:
    folder = record_folder(args.record, result["rows"][0]["schedule"], result["machine"])
    (folder / "run.json").write_text(strict_json.dumps(result, indent=1) + "\n")
    (folder / "table.md").write_text(f"`{result['command']}`\n\n```\n{text}\n```\n")
    schedule = override(load_schedule(args.schedule), args.set)
    output.chart(as_bars(result, schedule, load_manifest(args.data).side), folder / "chart.png")
    for picture in sorted([*first.glob("pictures/*.png"), *first.glob(f"{FOLDER}/*.png")]):
        if picture.name not in SHOW_IMAGES or is_rendered(load_manifest(args.data)):  # photos are their owners'
            shutil.copy(picture, folder / picture.name)
    add_rows(args.record / "results.csv", result)
    print(f"recorded in {folder}")


def as_bars(result: dict, schedule: Schedule, side: int) -> dict:
    """img/s of every stage, the median over seeds, for output.chart: beside the floor where one is known."""
    rows, floors, gpu, stem = [], {}, result["machine"]["gpu"], "7x7"
    precision = result["rows"][0]["precision"]
    for index, stage in enumerate(schedule.stages):
        stem = "3x3" if any(operation.startswith("stem:") for operation in stage.surgery) else stem
        crop = Geometry(side, stage.upscale, stage.whole).crop
        mode = f"stage {index + 1}, {stage.name}: {stage.epochs} epochs, crop {crop}"
        speed = statistics.median(summary["stages"][index]["img_per_s"] for summary in result["rows"])
        rows.append({"mode": mode, "name": schedule.name, "dtype": precision, "ours": True, "img_per_s": speed})
        network = Architecture(schedule.arch, schedule.width, CLASSES, stem)
        floors[mode] = step_floor.images_per_second(stage, network, side, precision, gpu)
    return {
        "rows": rows,
        "floors": {mode: floor for mode, floor in floors.items() if floor},
        "floor_note": step_floor.note(all(floors.values()), gpu),
    }
