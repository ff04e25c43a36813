"""Whole runs of several processes: stopped, killed, hung, resumed, and started by torchrun itself. Faults 28 and 30."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastres.data.libraries import installed
from fastres.model.reading import read_weights
from fastres.track.log import read_log
from tests.conftest import TINY_FILE
from tests.support import processes, sharing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]


def train(size: int, packed, folder, *extra: str, event: list | None = None) -> list[dict]:
    return processes.together(size, sharing.train_run, str(packed), str(folder), list(extra), event)


def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def same_end(a, b) -> None:
    """Final weights, errors and every epoch's loss, bit by bit."""
    ours, theirs = (read_weights(folder / "final.safetensors") for folder in (a, b))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert summary(a)["errors"] == summary(b)["errors"]
    losses = [
        [(r["at"], r["train_loss"], r["val_loss"]) for r in read_log(folder / "log.jsonl") if r["event"] == "epoch"]
        for folder in (a, b)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.mark.parametrize("size", [3])
def test_a_signal_to_one_stops_all_at_one_step_and_the_resume_ends_in_the_same_bits(packed, tmp_path, size):
    """Inside the second stage, whose third step leaves slices of unequal size."""
    extra = ["--set", "stages.1.epochs=2", "--sync-bn"] if size == 3 else []
    assert [r["code"] for r in train(size, packed, tmp_path / "whole", *extra)] == [0] * size
    stopped = train(size, packed, tmp_path / "run", *extra, event=["signal", size - 1, 4])
    assert [r["code"] for r in stopped] == [75] * size and summary(tmp_path / "run")["exit_code"] == 75
    assert sum(r["said"].count("error:") for r in stopped) == 1
    assert "stage all epoch 1 after step" in summary(tmp_path / "run")["error"]
    assert [r["code"] for r in train(size, packed, tmp_path / "run", *extra)] == [0] * size
    same_end(tmp_path / "run", tmp_path / "whole")


@pytest.mark.fault(30)
def test_another_number_of_processes_goes_on_where_it_is_asked_for(packed, tmp_path):
    assert train(2, packed, tmp_path, event=["signal", 0, 4])[0]["code"] == 75
    refused = train(3, packed, tmp_path)
    assert [r["code"] for r in refused] == [2, 2, 2] and "processes: 2 in the folder, 3 now" in refused[0]["said"]
    changed = train(3, packed, tmp_path, "--allow-process-change")
    assert [r["code"] for r in changed] == [0, 0, 0] and "not bit-exact" in changed[0]["said"]
    shown = sharing.train_run(str(packed), str(tmp_path), ["--allow-process-change"])
    assert shown["code"] == 0 and "12-crop" in shown["out"]


@pytest.mark.fault(28)
def test_a_fault_in_one_process_is_everyones(packed, tmp_path):
    """Said once; the first process notes it in the summary although it never saw the file."""
    results = train(3, packed, tmp_path, event=["fault", 2, 5])
    assert [r["code"] for r in results] == [3, 3, 3]
    assert sum(r["said"].count("error: a file that only this process reads") for r in results) == 1
    assert summary(tmp_path)["exit_code"] == 3 and "only this process" in summary(tmp_path)["error"]


def test_a_picture_that_the_first_cannot_write_is_everyones_fault(packed, tmp_path):
    """All end with the same exit code and sentence, said once: the others have nothing to say of a lost neighbour."""
    (tmp_path / "pictures" / "stem_filters.png").mkdir(parents=True)
    results = train(3, packed, tmp_path)
    assert [r["code"] for r in results] == [4, 4, 4], [r["said"] for r in results]
    assert sum(r["said"].count("error:") for r in results) == 1
    assert "stem_filters.png: is no regular file" in summary(tmp_path)["error"]


def test_a_loss_that_is_not_finite_ends_all(packed, tmp_path):
    results = train(2, packed, tmp_path, "--set", "optimizer.lr=1e30")
    assert [r["code"] for r in results] == [5, 5] and (tmp_path / "diverged.json").exists()
    assert sum(r["said"].count("error:") for r in results) == 1


def test_engines_share_as_the_resident_one_does(packed_for_engines, tmp_path):
    """With averaged weights and smoothed labels, too."""
    engines = [name for name in ("resident", "ffcv", "dali") if installed(name)]
    recipe = ["--set", "ema=0.9", "label_smoothing=0.1", "batch_size=50"]
    for name in engines:
        results = train(2, packed_for_engines, tmp_path / name, "--engine", name, *recipe)
        assert [r["code"] for r in results] == [0, 0] and summary(tmp_path / name)["processes"] == 2
    for name in engines[1:]:
        same_end(tmp_path / name, tmp_path / "resident")


# ---- torchrun itself


class Torchrun:
    """`torchrun` on a run that is too long to end by itself, until its second stage is under way."""

    def __init__(self, packed, folder: Path, size: int) -> None:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(size),
            "-m",
            "fastres.train",
            "--schedule",
            str(TINY_FILE),
            "--data",
            str(packed),
            "--run-dir",
            str(folder),
            "--wandb",
            "off",
            "--precision",
            "fp32",
            "--set",
            "stages.1.epochs=2000",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.launcher = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        log, deadline = folder / "log.jsonl", time.monotonic() + 180
        while not any(record.get("stage") == 1 and record["event"] == "epoch" for record in read_log(log)):
            assert self.launcher.poll() is None and time.monotonic() < deadline, self.launcher.communicate()
            time.sleep(0.2)
        self.workers = {self._rank(child): child for child in self._children()}
        assert sorted(self.workers) == list(range(size))

    def _children(self) -> list[int]:
        tasks = Path(f"/proc/{self.launcher.pid}/task")
        listed = " ".join((task / "children").read_text() for task in tasks.iterdir())
        return [int(pid) for pid in listed.split() if self._rank(int(pid)) is not None]

    @staticmethod
    def _rank(pid: int) -> int | None:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next((int(v[5:]) for v in variables if v.startswith(b"RANK=")), None)

    def send(self, number: int, target: int) -> tuple[float, str]:
        """Signal one process; (seconds until torchrun and all workers are gone, what was said)."""
        started = time.monotonic()
        os.kill(target, number)
        _, said = self.launcher.communicate(timeout=150)
        taken = time.monotonic() - started
        assert not any(Path(f"/proc/{pid}").exists() for pid in self.workers.values())
        assert self.launcher.returncode == 1  # whatever the workers' code was
        return taken, said


@pytest.mark.parametrize("target", ["torchrun", "worker"])
def test_sigterm_saves_and_the_summary_has_the_code(packed, tmp_path, target):
    running = Torchrun(packed, tmp_path / "run", 2)
    running.send(signal.SIGTERM, running.launcher.pid if target == "torchrun" else running.workers[1])
    assert summary(tmp_path / "run")["status"] == "preempted" and summary(tmp_path / "run")["exit_code"] == 75
    inside = [p.name for p in (tmp_path / "run" / "checkpoints").glob("stage1-*.pt") if "err" not in p.name]
    assert len(inside) == 1, "one checkpoint inside an epoch, where the run stopped"


@pytest.mark.fault(28)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_within_a_minute(packed, tmp_path, rank):
    running = Torchrun(packed, tmp_path / "run", 2)
    taken, said = running.send(signal.SIGKILL, running.workers[rank])
    assert taken < 60 and ("lost another one" in said or "no sign of life" in said)
    if rank == 1:
        assert summary(tmp_path / "run")["exit_code"] == 4


def test_a_process_that_hangs_ends_all(packed, tmp_path):
    """20 s without an answer, torchrun's own 30 s for a process that does not heed SIGTERM; measured 52 to 55 s."""
    running = Torchrun(packed, tmp_path / "run", 2)
    taken, said = running.send(signal.SIGSTOP, running.workers[1])
    assert taken < 80 and ("lost another one" in said or "no sign of life" in said)
    assert summary(tmp_path / "run")["exit_code"] == 4
