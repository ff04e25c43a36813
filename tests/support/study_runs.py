"""For the study's tests: three tiny systems trained without a process of their own; run folders of given figures."""

import importlib
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from safetensors.torch import save_file
from torch import zeros

from fastres.evaluate.combining import COMBINATIONS
from fastres.machine.command import run_command
from fastres.schedules import SCHEDULES
from fastres.schedules.writing import write_schedule
from fastres.study import __main__ as study_module
from tests.conftest import TINY

STAGES = tuple(replace(stage, epochs=1) for stage in TINY.stages)
PAPER = replace(TINY, name="paper", stages=STAGES, batch_size=8, optimizer=replace(TINY.optimizer, lr=0.005))
INITIALIZED = replace(PAPER, name="initialized-fc", stages=STAGES[:2])
NAIVE = replace(PAPER, name="naive-fc", stages=(replace(STAGES[1], surgery=("fc",), epochs=2),))


class Over:
    """A command that has run."""

    def __init__(self, code: int) -> None:
        self._code = code

    def poll(self) -> int:
        return self._code

    def stop(self) -> None:
        pass


class InProcess:
    """Starts train, and the search for a rate, in this process, and notes every command line."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []  # of train
        self.searches: list[list[str]] = []
        self.answer = lambda arguments: None  # an exit code to give instead of training

    def __call__(self, module, arguments, output, threads) -> Over:
        (self.calls if module == "fastres.train" else self.searches).append(arguments)
        code, command = (
            self.answer(arguments),
            importlib.import_module(module.replace("fastres.train", "fastres.train.command")).main,
        )
        if code is None:
            output.parent.mkdir(parents=True, exist_ok=True)
            no_pictures = patch("fastres.train.publishing.draw", lambda *_: [])  # of the run; the study draws its own
            with open(output, "w") as file, redirect_stdout(file), redirect_stderr(file), no_pictures:
                code = run_command(lambda: command(arguments))
        return Over(code)

    def names(self) -> list[str]:
        """Systems and seeds in the order they were trained."""
        return [Path(call[call.index("--run-dir") + 1]).name for call in self.calls]


def files(folder: Path, *schedules) -> str:
    """The schedules as files, comma-separated for --schedules."""
    folder.mkdir(parents=True, exist_ok=True)
    return ",".join(str(write_schedule(folder / f"{s.name}.py", s, "for a test")) for s in schedules)


def study(packed, folder, *extra, schedules=(NAIVE, INITIALIZED, PAPER), code=0) -> None:
    """The command in this process; everything lies below `folder`."""
    given = files(folder / "given", *schedules)
    arguments = ["--schedules", given, "--data", str(packed), "--out", str(folder / "out"), "--device", "cpu"]
    assert run_command(lambda: study_module.main([*arguments, *map(str, extra)])) == code


def result_of(out: Path) -> dict:
    """What the study wrote for machines."""
    return json.loads((out / "study.json").read_text())


def _epoch_lines(stage: int, curve, rates) -> list[dict]:
    plain = {"event": "epoch", "stage": stage, "stage_name": "x", "train_s": 1.0, "img_per_s": 9.0}
    return [
        {
            **plain,
            "epoch_total": k + 1,
            **{"train_loss": e / 20, "val_loss": e / 10, "val_top1_err": e, "val_top5_err": e / 2},
            "lr": rate,
        }
        for k, (e, rate) in enumerate(zip(curve, rates, strict=True))
    ]


def made_run(
    folder: Path,
    name: str,
    errors: dict,
    *,
    seed=0,
    classes=200,
    side=64,
    count=10_000,
    curve=(50.0, 40.0),
    rates=None,
    ids=None,
    status="done",
    photos=False,
    begun=None,
) -> Path:
    """A run folder with the figures given: {"METHOD top1": %}; the rest 12-crop's, or 30 and 10. `begun`: stages, all
    of them where it does not say; `curve` is of the last one."""
    schedule = replace(SCHEDULES.get(name, SCHEDULES["paper"]), name=name).to_dict()
    folder.mkdir(parents=True)
    (folder / "stages").mkdir()
    config = {"schedule": schedule, "seed": seed, "content_digest": "d"}
    (folder / "config.json").write_text(json.dumps(config))
    table = {
        m: {k: errors.get(f"{m} {k}", errors.get(f"12-crop {k}", d)) for k, d in (("top1", 30.0), ("top5", 10.0))}
        for m in ("full", "centre", "10-crop", "12-crop")
    }
    stages = [{"train_s": 1.0, "img_per_s": 9.0, "val_top1_err": 1.0}] * len(schedule["stages"])
    summary = {"status": status, "error": "the training loss is nan"}
    if status == "done":
        summary = {
            **{"status": status, "count": count, "train_s": 4.0, "stages": stages},
            "commits": ["abc1234"],
            "errors": dict.fromkeys(COMBINATIONS, table),
            **{"device": "a processor", "precision": "fp32", "torch": "2", "data": "nowhere"},
        }
    if status != "unfinished":
        (folder / "summary.json").write_text(json.dumps(summary))
    last = len(schedule["stages"]) - 1
    lines = [{"event": "stage", "stage": k} for k in range(last + 1 if begun is None else begun)]
    lines += _epoch_lines(last, curve, rates or [0.1] * len(curve))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ids = ids or [f"n{k:08d}" for k in range(classes)]
    seen = 100_000 * schedule["stages"][0]["epochs"]
    data = f"photos, {classes} classes, {side} pixels" if photos else ""
    facts = {"side": side, "classes": [[i, "name"] for i in ids], "images_seen": seen, "data": data}
    save_file({"x": zeros(1)}, folder / "stages" / "0.safetensors", {"fastres": json.dumps(facts)})
    return folder
