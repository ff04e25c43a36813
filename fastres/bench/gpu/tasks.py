"""What `fastres gpu` runs: commands of this project, each in a process of its own with an end to its time."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastres.bench.gpu import verdicts
from fastres.bench.gpu.verdicts import Verdict
from fastres.bench.steps import KINDS

ROOT = Path(__file__).parents[3]
PARTS = ("views", "tests", "steps", "run")


@dataclass(frozen=True)
class Task:
    """One process.

    part     of PARTS, `name` unlike any other task's
    command  words behind the interpreter; {out} stands for the folder of this task's files
    limit_s  seconds after which it is ended
    judge    what its files say, from that folder; not asked where the process failed
    needs    a file or folder of the project without which it cannot run
    """

    part: str
    name: str
    command: tuple[str, ...]
    limit_s: float
    judge: Callable[[Path], list[Verdict]]
    needs: Path | None = None

    def words(self, out: Path) -> list[str]:
        return [sys.executable, *(word.replace("{out}", str(out)) for word in self.command)]


def tasks(device: str, precision: str, small: bool) -> list[Task]:
    """All of them, in the order in which a lent GPU's minutes are best spent. `small`: sizes that a CPU does in a few
    minutes, which show that the command works and nothing else."""
    common = ("--device", device, "--json", "{out}/result.json")
    views = ("--batch", "8", "--rounds", "1", "--seconds", "0", "--images", "64") if small else ("--rounds", "3")
    steps = ("--rounds", "3", "--seconds", "0.5", "--batch", "256", "--width", "64", "--side", "64")
    if small:
        steps = ("--rounds", "1", "--seconds", "0", "--batch", "4", "--width", "8", "--side", "16")
    gpu_tests = ("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--junitxml", "{out}/result.xml")
    return [
        Task("views", "views", ("-m", "fastres.bench", "views", *common, *views), 120, verdicts.of_bench),
        Task("tests", "tests", (*gpu_tests, str(ROOT / "tests")), 250, verdicts.of_tests, ROOT / "tests"),
        *(
            Task(
                "steps",
                f"steps-{kind}",
                ("-m", "fastres.bench", "steps", *common, *steps, "--stages", kind, "--precision", precision,
                 "--peers", "torchvision"),
                240,
                verdicts.of_bench,
            )
            for kind in KINDS
        ),
        *_run(device, precision, small),
    ]  # fmt: skip


def _run(device: str, precision: str, small: bool) -> list[Task]:
    """The whole schedule on data made on the spot, weights from scratch: its errors mean little, its times all."""
    world = ("--small-world", "--per-class", "8,2") if small else ("--small-world", "tiny")
    sizes = ("weights=none",)
    if small:
        sizes += ("width=8", "batch_size=16", *(f"stages.{stage}.epochs=1" for stage in range(4)))
    pack = ROOT / "preprocess" / "pack.py"
    made = "{out}/../data"
    command = ("-m", "fastres.bench", "run", "--schedule", "paper", "--data", f"{made}/packed", "--device", device,
               "--precision", precision, "--json", "{out}/result.json", *map("--set={}".format, sizes))  # fmt: skip
    return [
        Task("run", "data", (str(pack), *world, "--out", f"{made}/packed", "--engines", "resident"), 240,
             verdicts.of_nothing, pack),
        Task("run", "run", command, 420, partial(verdicts.of_run, most=101.0) if small else verdicts.of_run),
    ]  # fmt: skip
