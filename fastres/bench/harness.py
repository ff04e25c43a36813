"""How every benchmark measures and reports: contenders take turns, medians over turns, the machine in the record."""

import argparse
import gc
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fastres.bench import output
from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.console import say
from fastres.machine.device import choose_device
from fastres.machine.errors import FastresError, MachineError

# What makes the peers fastest. glibc gives big freed buffers back to the system by default, and every batch then pays
# for fresh zeroed pages: keeping them makes FFCV 1.6 times and kornia 4.9 times as fast. Threads of torch that spin
# while they wait cost nothing on an idle machine, and a factor of up to 16 (mode B) on one that runs anything else.
# Ours does not care: it writes into one buffer, with threads that sleep.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "9000000000",
    "MALLOC_TOP_PAD_": "200000000",
    "OMP_WAIT_POLICY": "PASSIVE",
}

# Images per batch. A GPU makes 128 views in less time than the host needs to launch the kernels for them, so that a
# benchmark of such batches measures the host.
BATCH = {"cpu": 128, "cuda": 2048}


@dataclass
class Contender:
    """One way to do the work.

    run(n)   does n units (batches, or epochs) and returns the number of images made
    ours     part of this project
    note     what is not equal to what ours does
    """

    mode: str
    name: str
    run: Callable[[int], int]
    ours: bool = False
    dtype: str = "float32"
    bytes_per_image: int = 0
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def options(doc: str, name: str, batch: Callable = int) -> argparse.ArgumentParser:
    """The options every subject has. `batch`: what makes --batch's value of its text."""
    p = argparse.ArgumentParser(
        prog=f"python -m fastres.bench {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default %(default)s)")
    p.add_argument("--batch", type=batch, help="images per batch; default: what suits the subject and the device")
    p.add_argument("--rounds", type=int, default=5, help="turns of each contender; the median counts")
    p.add_argument("--json", type=place, metavar="FILE", help="write {machine, rows, ratios} here")
    p.add_argument("--record", type=place, metavar="DIR", help="write a dated folder with JSON, table and chart here")
    return p


def settle(args: argparse.Namespace) -> None:
    """Turn args.device into a torch.device and fill in args.batch; UsageError or MachineError for a bad device."""
    args.device = choose_device(args.device)
    if args.batch is None:
        args.batch = BATCH[args.device.type]


def take_turns(
    contenders: list[Contender], rounds: int, seconds: float, device: torch.device
) -> tuple[list[Contender], list[str]]:
    """Measure all of them alternately, so that what else happens on the machine hits all alike.

    Each turn of a contender runs about `seconds` (0: one unit); its first, longer unit (compilation, page
    faults) is not counted. Returns those that ran, and a line for each whose first unit failed: what compiles or
    records when first called fails only there, and is not to cost the others their figures.
    """
    units, skipped = {}, []
    for contender in contenders:
        try:
            contender.run(1)
            units[id(contender)] = max(1, round(seconds / _timed(contender, 1, device)[0])) if seconds else 1
        except Exception as error:  # of any library's
            if not isinstance(error, FastresError):  # those are sentences, and the line below has it
                traceback.print_exc()
            skipped.append(skip_note(f"{contender.mode}: {contender.name}", error))
    ran = [contender for contender in contenders if id(contender) in units]
    for _ in range(rounds):
        for contender in ran:
            gc.collect()
            took, images = _timed(contender, units[id(contender)], device)
            contender.seconds.append(took)
            contender.rates.append(images / took)
    return ran, skipped


def check_ours_ran(skipped: list[str]) -> None:
    """MachineError where one of ours failed, once everything else is shown and recorded."""
    failed = [line for line in skipped if "fastres" in line]
    if failed:
        raise MachineError("; ".join(failed) + ": see what is said of it above; the others' figures are complete")


def _timed(contender: Contender, units: int, device: torch.device) -> tuple[float, int]:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    images = contender.run(units)
    wait()
    return time.perf_counter() - start, images


def row(contender: Contender, bandwidth: float | None = None) -> dict:
    """A contender's figures, fit for JSON; `bandwidth` in bytes per second is what its writes are compared with."""
    rates = sorted(contender.rates)
    middle = statistics.median(rates)
    written = middle * contender.bytes_per_image
    return {
        "mode": contender.mode,
        "name": contender.name,
        "ours": contender.ours,
        "dtype": contender.dtype,
        "img_per_s": round(middle, 1),
        "lowest": round(rates[0], 1),
        "highest": round(rates[-1], 1),
        "written_gb_per_s": round(written / 1e9, 3),
        "share_of_write_bandwidth": round(written / bandwidth, 4) if bandwidth else None,
        "note": contender.note,
    }


def ratios(rows: list[dict], to_all: bool = False) -> dict[str, float]:
    """By mode, each of ours against the best peer, or `to_all` of them, best first: how many times as fast."""
    found = {}
    for mode in dict.fromkeys(r["mode"] for r in rows):
        peers = sorted((r for r in rows if r["mode"] == mode and not r["ours"]), key=lambda r: -r["img_per_s"])
        for r in rows:
            for peer in peers if to_all else peers[:1]:
                if r["mode"] == mode and r["ours"]:
                    key = f"{mode}: {r['name']} {r['dtype']} / {peer['name']}"
                    found[key] = round(r["img_per_s"] / peer["img_per_s"], 2)
    return found


def tuned() -> dict[str, str]:
    """The environment with the settings of TUNED; what the user has set stays."""
    return {**TUNED, **os.environ}


def measured_apart(subject: str, measure: Callable[[argparse.Namespace], dict], args, argv: list[str]) -> int:
    """The end of a subject's `main`: `measure` in a process of its own, then print, --json, --record. That process is
    the same command with --result FILE, where it leaves what it measured."""
    if args.result:
        args.result.write_text(strict_json.dumps(measure(args)))
        return 0
    result = in_tuned_process(subject, argv)
    output.publish(subject, result, argv, args)
    check_ours_ran(result["skipped"])
    return 0


def in_tuned_process(subject: str, arguments: list[str]) -> dict:
    """Run `python -m fastres.bench subject arguments --result FILE` with the settings of TUNED; return the JSON that it
    leaves. MachineError where it leaves none."""
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "fastres.bench", subject, *arguments, "--result", str(result)]
        done = subprocess.run(command, env=tuned())
        if done.returncode or not result.exists():
            raise MachineError(f"{shlex.join(command)} ended with {done.returncode}: see its message above")
        return json.loads(result.read_text())


def skip_note(name: str, error: Exception) -> str:
    """One line on stderr about a contender that cannot run here; also returned, for the record."""
    line = f"{name} left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    say(line)
    return line


def all_of(makers: Iterable[tuple[str, Callable[[], Iterable[Contender]]]]) -> tuple[list[Contender], list[str]]:
    """Make every contender that can be made here; the others leave a line that says why."""
    contenders, skipped = [], []
    for name, make in makers:
        try:
            contenders += list(make())
        except (ImportError, OSError, MachineError) as error:
            skipped.append(skip_note(name, error))
    return contenders, skipped
