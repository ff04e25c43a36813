"""Everything that a new GPU must show, in one command: what works there, what is wrong, what is slow.

    fastres gpu                                 # about ten minutes of an H100, by estimate: nobody has run it on one
    fastres gpu --parts views,tests             # some of it
    fastres gpu --device cpu --small            # that the command itself works

In turn: the views kernel beside its peers; the tests that only a GPU can run; one optimiser step of each kind of stage
in every form, beside torchvision's loop and the floor; the whole `paper` schedule on data made on the spot. Each task
is a process of its own, with an end to its time. The same command again goes on with what is missing; --again repeats.
The last line names a file with all figures, to be sent to whoever asks how fast fastres is.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import time
from pathlib import Path

from fastres.bench import output
from fastres.bench.gpu import verdicts
from fastres.bench.gpu.tasks import PARTS, Task, tasks
from fastres.bench.gpu.verdicts import COLUMNS, Verdict
from fastres.machine import facts, strict_json
from fastres.machine.arguments import place
from fastres.machine.console import say, table
from fastres.machine.device import CHOICES, choose_device, choose_precision
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.files import write_atomic
from fastres.track.record import record_folder

TAIL = 5  # lines of a failed task's output that are kept


def main(argv: list[str] | None = None) -> int:
    """Run the tasks, print the table; 4 where a task failed or found something wrong."""
    args = _parser().parse_args(argv)
    chosen = args.parts.split(",")
    for part in chosen:
        if part not in PARTS:
            raise UsageError(f"--parts {part}: unknown, expected some of {', '.join(PARTS)}")
    device = choose_device(args.device)
    if device.type == "cpu" and not args.small:
        raise MachineError("fastres gpu: no GPU here; --device cpu --small shows that the command itself works")
    precision = choose_precision(args.precision, device).name
    about = {"machine": facts.machine(device), "precision": precision, "small": args.small}
    done, planned = (
        _before(args, about),
        [task for task in tasks(str(device), precision, args.small) if task.part in chosen],
    )
    started = time.perf_counter()
    for number, task in enumerate(planned, 1):
        if task.name in done:
            say(f"{number}/{len(planned)} {task.name}: done before")
            continue
        say(f"{number}/{len(planned)} {task.name}, {time.perf_counter() - started:.0f} s so far")
        done[task.name] = run(task, args.out / task.name)
        _keep(args.out, about, done)
    rows = [Verdict(*row) for task in planned for row in done[task.name]["verdicts"]]
    say(f"{time.perf_counter() - started:.0f} s in all")
    print(table([row.cells() for row in rows], list(COLUMNS)))
    if args.record:
        print(f"recorded in {_record(args, about, rows)}")
    print(f"all figures, without a name or a path of this machine: {args.out / 'gpu.json'}")
    bad = [row for row in rows if row.verdict in ("failed", "wrong")]
    if bad:
        raise MachineError(
            f"{'; '.join(f'{row.what}: {row.verdict}' for row in bad)}: see the table above and the logs in {args.out}"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="fastres gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--parts", default=",".join(PARTS), metavar="A,B", help="default %(default)s")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto", help="auto: bf16 where the hardware has it")
    p.add_argument("--small", action="store_true", help="sizes for a CPU: shows that it runs, no figure worth keeping")
    p.add_argument("--again", action="store_true", help="measure anew what was done before")
    p.add_argument("--out", type=place, default=Path("runs/live/gpu"), metavar="DIR", help="default %(default)s")
    p.add_argument(
        "--record", type=place, metavar="DIR", help="write a dated folder with figures, table and chart here"
    )
    return p


def run(task: Task, out: Path) -> dict:
    """The task's verdicts, seconds and, where it has one, result; nothing that it does ends the others."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started, result = time.perf_counter(), None
    if task.needs and not task.needs.exists():
        found = [
            Verdict(task.name, "not run", because=f"needs the project's {task.needs.name}, which is not installed")
        ]
    else:
        reason = _process(task, out)
        try:
            found = verdicts.failed(task.name, reason) if reason else task.judge(out)
        except (OSError, ValueError, KeyError, IndexError, SyntaxError) as error:  # SyntaxError: what XML calls its own
            found = verdicts.failed(task.name, f"its result cannot be read ({type(error).__name__}: {error})")
    with contextlib.suppress(OSError, ValueError):
        result = json.loads((out / "result.json").read_text())
        result.pop("command", None)  # has the place of its files in it
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "verdicts": [list(row) for row in found],
        "result": result,
    }


def _process(task: Task, out: Path) -> str | None:
    """Run it, its output into <out>/log.txt; why it failed, or None. A task that failed with a result is judged by it:
    a bench ends with 4 where one of ours did not run, and pytest with 1 where a test failed."""
    with (out / "log.txt").open("wb") as log:
        process = subprocess.Popen(task.words(out), stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait(task.limit_s)
        except subprocess.TimeoutExpired:
            return f"not over after {task.limit_s:.0f} s"
        finally:
            process.kill()
            process.wait()
    if code == 0 or any((out / name).exists() for name in ("result.json", "result.xml")):
        return None
    last = (out / "log.txt").read_text(errors="replace").strip().splitlines()[-TAIL:]
    said = next((line for line in reversed(last) if line.startswith("error:")), last[-1] if last else "")
    return f"exit code {code}: {said.replace(str(out), '<out>').replace(str(Path.home()), '~')}"


def _before(args, about: dict) -> dict:
    """What an earlier command found on the same machine with the same code, by task, those that failed left out."""
    if args.again:
        return {}
    try:
        kept = strict_json.loads((args.out / "gpu.json").read_text())
        same = all(_comparable(kept[name]) == _comparable(about[name]) for name in about)
        found = {name: task for name, task in kept["tasks"].items() if same}
        return {n: t for n, t in found.items() if all(Verdict(*v).verdict != "failed" for v in t["verdicts"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _comparable(value: object) -> object:
    """A machine's facts without those that pass."""
    passing = ("date", "load_before", "threads_wait")
    return {k: v for k, v in value.items() if k not in passing} if isinstance(value, dict) else value


def _keep(out: Path, about: dict, done: dict) -> None:
    write_atomic(out / "gpu.json", (strict_json.dumps({**about, "tasks": done}, indent=1) + "\n").encode())


def _record(args, about: dict, rows: list[Verdict]) -> Path:
    """A dated folder with all figures, the table, and a chart of the benches."""
    folder = record_folder(args.record, "gpu", about["machine"])
    shutil.copyfile(args.out / "gpu.json", folder / "gpu.json")
    text = table([row.cells() for row in rows], list(COLUMNS))
    words = ["fastres", "gpu", "--parts", args.parts, *(["--small"] if args.small else [])]
    (folder / "table.md").write_text(f"`{' '.join(words)}`\n\n```\n{text}\n```\n")
    kept = json.loads((folder / "gpu.json").read_text())["tasks"].values()
    benches = [
        task["result"] for task in kept if task["result"] and "ratios" in task["result"] and task["result"]["ratios"]
    ]
    rows_of_all = [row for result in benches for row in result["rows"]]
    if rows_of_all:
        floors = {mode: floor for result in benches for mode, floor in result.get("floors", {}).items()}
        output.chart({"rows": rows_of_all, "floors": floors}, folder / "chart.png")
    return folder
