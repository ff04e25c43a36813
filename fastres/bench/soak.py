"""A long run watched from outside: memory, threads and file handles must stay flat.

    python -m fastres.bench soak --data runs/live/demo-world --record runs/

Trains --schedule (demo) for --epochs epochs in all, three quarters of them in its last stage, as its own process and
with W&B's offline mirror, and reads /proc at the end of every epoch. A stage may hold more than the one before; flat is
meant within one.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastres.machine import facts, strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.console import say, table
from fastres.machine.device import choose_device
from fastres.machine.errors import MachineError, UsageError
from fastres.schedules.loading import load_schedule
from fastres.track.log import read_log
from fastres.track.record import record_folder

FIGURES = ("memory_mb", "threads", "handles")
SETTLING = 3  # epochs of a stage that allocators and caches may take
# Between the first and the last third of a stage's settled epochs: what an allocator's noise may be.
ALLOWED_MB, ALLOWED_SHARE = 16.0, 0.02
LOOK_EVERY = 0.02  # seconds


def main(argv: list[str] | None = None) -> int:
    """`python -m fastres.bench soak`: train, watch, print, --json, --record. MachineError where something grew."""
    p = argparse.ArgumentParser(
        prog="python -m fastres.bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--schedule", default="demo", metavar="NAME|FILE.py")
    p.add_argument("--data", type=place, default=Path("packed"), metavar="DIR")
    p.add_argument("--epochs", type=int, default=50, help="over all stages (default %(default)s)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--wandb", choices=("offline", "off"), default="offline")
    p.add_argument("--json", type=place, metavar="FILE", help="write {machine, rows, growth} here")
    p.add_argument("--record", type=place, metavar="DIR", help="write a dated folder with JSON, table and chart here")
    args = p.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        rows = watch(command(args, Path(scratch) / "run"), Path(scratch) / "run" / "log.jsonl")
    device = choose_device(args.device)  # as the training has chosen it
    words = ["python", "-m", "fastres.bench", "soak", *(sys.argv[2:] if argv is None else argv)]
    result = {"command": " ".join(words), "machine": facts.machine(device), "rows": rows, "growth": growth(rows)}
    text = as_table(result)
    print(text)
    if args.json:
        args.json.write_text(strict_json.dumps(result, indent=1) + "\n")
    if args.record:
        folder = record_folder(args.record, "soak", result["machine"])
        (folder / "soak.json").write_text(strict_json.dumps(result, indent=1) + "\n")
        (folder / "table.md").write_text(f"`{result['command']}`\n\n```\n{text}\n```\n")
        plot(rows, folder / "soak.png")
        print(f"recorded in {folder}")
    grown = [f"{what} by {by:g} in stage {stage}" for stage, what, by in grew(result)]
    if grown:
        raise MachineError(f"the run did not stay flat: {'; '.join(grown)}; expected no growth within a stage")
    return 0


def command(args: argparse.Namespace, run_dir: Path) -> list[str]:
    """The training to watch: a quarter of the epochs before the last stage, at least one a stage."""
    stages = len(load_schedule(args.schedule).stages)
    if args.epochs < stages:
        raise UsageError(f"--epochs {args.epochs}: expected at least one for each of {stages} stages")
    early = max(1, args.epochs // 4 // max(1, stages - 1))
    epochs = [early] * (stages - 1)
    epochs.append(args.epochs - sum(epochs))
    return [
        sys.executable,
        "-m",
        "fastres.train",
        "--schedule",
        args.schedule,
        "--data",
        str(args.data),
        "--run-dir",
        str(run_dir),
        "--device",
        args.device,
        "--wandb",
        args.wandb,
        "--json",
        *(f"--set=stages.{stage}.epochs={count}" for stage, count in enumerate(epochs)),
    ]


def watch(words: list[str], log: Path) -> list[dict]:
    """Run it; one row an epoch: {"stage", "epoch", "seconds", "memory_mb", "threads", "handles"} of its process."""
    rows, started = [], time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        time.sleep(LOOK_EVERY)
        if log.exists() and log.read_bytes().count(b'"event": "epoch"') > len(rows):
            epochs = [record for record in read_log(log) if record["event"] == "epoch"]
            try:
                seen = look(process.pid)
            except OSError:  # it has just ended
                break
            for record in epochs[len(rows) :]:
                rows.append(
                    {
                        "stage": record["stage"],
                        "epoch": record["epoch_total"],
                        "seconds": time.perf_counter() - started,
                        **seen,
                    }
                )
                say(f"epoch {record['epoch_total']}: {seen}")
    _, said = process.communicate()
    if process.returncode:
        raise MachineError(f"the training ended with exit code {process.returncode}: {said.splitlines()[-1]}")
    return rows


def look(pid: int) -> dict[str, float]:
    """Resident memory in MB (10^6 bytes), threads and open file handles of a process, from /proc."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        "threads": int(status["Threads"]),
        "handles": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def growth(rows: list[dict]) -> list[dict]:
    """For each stage long enough: what each figure gained from the first to the last third of its settled epochs."""
    found = []
    for stage in sorted({row["stage"] for row in rows}):
        mine = [row for row in rows if row["stage"] == stage][SETTLING:]
        third = math.ceil(len(mine) / 3)
        if len(mine) < 3:
            continue
        first, last = (
            {what: statistics.median(row[what] for row in part) for what in FIGURES}
            for part in (mine[:third], mine[-third:])
        )
        found.append(
            {
                "stage": stage,
                "epochs": len(mine),
                "at": first,
                "gained": {what: last[what] - first[what] for what in FIGURES},
            }
        )
    return found


def grew(result: dict) -> list[tuple[int, str, float]]:
    """What gained more than it may: stage, figure, by how much. Threads and handles may gain none."""
    found = []
    for entry in result["growth"]:
        allowed = {"memory_mb": max(ALLOWED_MB, ALLOWED_SHARE * entry["at"]["memory_mb"])}
        found += [(entry["stage"] + 1, what, by) for what, by in entry["gained"].items() if by > allowed.get(what, 0)]
    return found


def as_table(result: dict) -> str:
    rows = [
        [
            entry["stage"] + 1,
            entry["epochs"],
            *(cell for what in FIGURES for cell in (entry["at"][what], entry["gained"][what])),
        ]
        for entry in result["growth"]
    ]
    header = ["stage", "settled epochs", "memory MB", "gained", "threads", "gained", "handles", "gained"]
    return table(rows, header)


def plot(rows: list[dict], path: Path) -> None:
    """Three panels over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(9, 6), sharex=True, layout="constrained")
    borders = [row["epoch"] - 0.5 for before, row in zip(rows, rows[1:]) if row["stage"] != before["stage"]]
    for axis, what in zip(axes, FIGURES):
        axis.plot([row["epoch"] for row in rows], [row[what] for row in rows], marker=".", color="#d1495b")
        axis.set_ylabel(what.replace("_mb", " MB"))
        axis.set_ylim(0, 1.15 * max(row[what] for row in rows))
        axis.spines[["top", "right"]].set_visible(False)
        for border in borders:
            axis.axvline(border, color="#8d99ae", linewidth=0.8)
    axes[-1].set_xlabel("epoch (lines: borders of stages)")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(run_command(main))
