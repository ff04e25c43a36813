"""Faults 28, 29 and 31 in whole runs: W&B that fails in every way, loaders that die, a GPU that is full."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from fastres import views
from fastres.data.ahead import Ahead
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import scores as scores_module
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError
from fastres.model.network import Architecture, build
from fastres.schedules.types import ViewSettings
from fastres.stage.step import EagerStep
from fastres.track.mirror import WandbMirror
from fastres.track.run_dir import RunDir
from fastres.train import command as train_module
from fastres.train import run as run_module
from fastres.views.geometry import Geometry
from tests.conftest import TINY_FILE

ROOT = Path(__file__).parents[2]


def command(packed, folder, *extra) -> list[str]:
    return [
        "--schedule",
        str(TINY_FILE),
        "--data",
        str(packed),
        "--run-dir",
        str(folder),
        "--device",
        "cpu",
        "--precision",
        "fp32",
        *extra,
    ]


@pytest.mark.slow
@pytest.mark.fault(29)
def test_wandb_takes_no_time_of_the_training_thread(packed, tmp_path, monkeypatch, no_login):
    """Its server swallows everything; its calls take at most 1 % of the run, measured on the training thread."""
    spent, waited, original = [], [], WandbMirror.log

    def timed(self, metrics):
        started, since = time.thread_time(), time.monotonic()
        original(self, metrics)
        spent.append(time.thread_time() - started)
        waited.append(time.monotonic() - since)

    monkeypatch.setattr(WandbMirror, "log", timed)
    monkeypatch.setattr(
        WandbMirror,
        "close",
        lambda self, timeout=1.0, exit_code=0, close=WandbMirror.close: close(self, 1.0, exit_code),
    )
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        started = time.thread_time()
        assert run_command(lambda: train_module.main(command(packed, tmp_path / "run", "--wandb", "online"))) == 0
        whole = time.thread_time() - started
    assert len(spent) >= 18 and sum(spent) <= 0.01 * whole
    # a call that blocks spends no time of its thread; other processes may hold up one call, but not most
    assert sorted(waited)[len(waited) // 2] < 0.01 and max(waited) < 5
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"


@pytest.mark.slow
@pytest.mark.fault(29)
def test_wandb_killed_in_mid_run_changes_nothing(packed, tmp_path, monkeypatch, no_login, capfd):
    original, killed = EagerStep.__call__, []

    def killing(self, *arguments, **named):
        original(self, *arguments, **named)
        if not killed:
            killed.append(mirrors[0]._process.pid)
            os.kill(killed[0], signal.SIGKILL)

    mirrors, make = [], run_module.open_wandb
    monkeypatch.setattr(run_module, "open_wandb", lambda *a, **k: mirrors.append(make(*a, **k)) or mirrors[0])
    monkeypatch.setattr(EagerStep, "__call__", killing)
    assert run_command(lambda: train_module.main(command(packed, tmp_path / "run", "--wandb", "offline"))) == 0
    assert killed and "W&B stopped" in capfd.readouterr().err


@pytest.mark.fault(29)
@pytest.mark.slow
def test_wandbs_folder_on_a_full_disk_changes_nothing(packed, tmp_path, no_login):
    """A real disk of 64 KB under it, in a mount namespace."""
    folder = tmp_path / "run"
    (folder / "wandb").mkdir(parents=True)
    words = " ".join(command(packed, folder, "--wandb", "offline"))
    mount = f"mount -t tmpfs -o size=64k none {folder}/wandb || exit 99"
    script = f"{mount}; exec {sys.executable} -m fastres.train {words}"
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=200
    )
    if done.returncode in (1, 99) and "fastres" not in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0 and "W&B" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert (folder / "final.safetensors").is_file()


@pytest.mark.fault(28)
@pytest.mark.slow
@pytest.mark.parametrize("how", ["raises", "ends"])
def test_ffcvs_loader_that_fails_in_mid_run_ends_it(packed_for_engines, tmp_path, monkeypatch, capsys, how):
    """FFCV's own pipeline fails in the thread that runs it, in the second epoch: an error, or a SystemExit, which ends
    a thread without a word."""
    iterators = pytest.importorskip("ffcv.loader.epoch_iterator")
    original, calls = iterators.EpochIterator.run_pipeline, []

    def failing(self, *arguments):
        calls.append(threading.current_thread().name)
        if len(calls) == 18:  # 10 batches of training and 3 of validation in the first epoch
            raise OSError("a page of the packed file cannot be read") if how == "raises" else SystemExit
        return original(self, *arguments)

    monkeypatch.setattr(iterators.EpochIterator, "run_pipeline", failing)
    started = time.monotonic()
    words = command(packed_for_engines, tmp_path / "run", "--wandb", "off", "--engine", "ffcv")
    if how == "ends":
        assert run_command(lambda: train_module.main(words)) == 4
        assert "the ffcv engine stopped: its thread ended with SystemExit" in capsys.readouterr().err
    else:
        assert run_command(lambda: train_module.main(words)) == 4
        assert "a page of the packed file cannot be read" in capsys.readouterr().err
        (kept,) = (tmp_path / "run").glob("traceback-*.txt")
        assert 'OSError("a page of the packed file' in kept.read_text()
    assert len(calls) == 18 and set(calls) == {"ahead-the ffcv engine"}
    assert time.monotonic() - started < 60
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


@pytest.mark.fault(28, by_hand=True)
def test_a_loader_that_dies_ends_the_run_with_exit_4(packed, tmp_path, monkeypatch, capsys):
    """A thread that works ahead ends without a word in the second epoch: told at once, and the summary says failed."""
    original, epochs = Resident.batches, []

    def ahead(self, ids, batch_size):
        epochs.append(len(ids))

        def produce():
            for number, batch in enumerate(original(self, ids, batch_size)):
                if len(ids) == 40 and epochs.count(40) == 2 and number == 1:
                    raise SystemExit  # what ends a thread silently
                yield batch

        with Ahead(produce, name="loader", patience=5) as items:
            yield from items

    monkeypatch.setattr(Ahead, "_work", dying(Ahead._work))
    monkeypatch.setattr(Resident, "batches", ahead)
    started = time.monotonic()
    code = run_command(lambda: train_module.main(command(packed, tmp_path / "run", "--wandb", "off")))
    assert code == 4 and time.monotonic() - started < 60
    assert "its thread died without a word" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def dying(work):
    """Ahead's thread, except that SystemExit ends it as a crash in C would: nothing is passed on."""

    def quiet(self, produce):
        put = self._put
        self._put = lambda item: None if isinstance(getattr(item, "error", None), SystemExit) else put(item)
        work(self, produce)

    return quiet


FULL = torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("FIND was unable to find an engine to execute")


class Full(torch.nn.Module):
    """A network on a device that holds `room` views at most; torch's fault, and cuDNN's where no workspace fits."""

    def __init__(self, room: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.room, self.seen = build(Architecture("resnet18", 8, 4)).eval(), room, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            raise FULL[len(self.seen) % 2]
        return self.network(x)


@pytest.mark.fault(31, by_hand=True)
def test_evaluation_halves_its_batch_until_it_fits(packed, capsys, monkeypatch):
    """The error raised by hand: what is done with it, not that a GPU raises it."""
    monkeypatch.setattr(scores_module, "_fitting", {})
    data = Resident(packed, load_manifest(packed), "val", torch.device("cpu"))
    plan = views.TestPlan(geometry=Geometry(16, 1), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    fp32 = Precision("fp32", torch.device("cpu"))
    full, roomy = Full(12 * 5), Full(12 * 20)
    expected = scores_module.score(roomy, data, plan, fp32)
    torch.testing.assert_close(scores := scores_module.score(full, data, plan, fp32), expected, atol=1e-4, rtol=1e-4)
    assert scores.shape == (20, 12, 4) and full.seen[0] == 12 * 20 and set(full.seen[1:]) <= {12 * 10, 12 * 5}
    assert "the GPU's memory is full, going on with 5 images a pass" in capsys.readouterr().err
    full.seen.clear()
    torch.testing.assert_close(scores_module.score(full, data, plan, fp32), scores, atol=0, rtol=0)
    assert set(full.seen) == {12 * 5} and not capsys.readouterr().err  # remembered: the next epoch fills nothing
    with pytest.raises(MachineError, match="one image's views do not fit"):
        scores_module.score(Full(11), data, plan, fp32)


@pytest.mark.fault(31, by_hand=True)
@pytest.mark.parametrize("fault", FULL)
def test_training_out_of_memory_is_exit_4_with_the_batch_size(packed, tmp_path, monkeypatch, capsys, fault):
    def full(self, *arguments):
        raise fault

    monkeypatch.setattr(EagerStep, "_update", full)
    assert run_command(lambda: train_module.main(command(packed, tmp_path / "run", "--wandb", "off"))) == 4
    said = capsys.readouterr().err
    assert "memory is full at batch size 16 after" in said and "--set batch_size=8" in said
    with RunDir.open(tmp_path / "run", json.loads((tmp_path / "run" / "config.json").read_text())) as folder:
        assert folder.summary()["exit_code"] == 4 and not folder.finished


@pytest.mark.fault(31)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_really_full_is_exit_4(packed, tmp_path, capsys):
    """Most of its memory is taken away first."""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - 600 * 2**20), dtype=torch.uint8, device="cuda")
    options = ["--wandb", "off", "--device", "cuda", "--set", "width=64", "--set", "batch_size=40"]
    arguments = [*command(packed, tmp_path / "run")[:6], *options]
    assert run_command(lambda: train_module.main(arguments)) == 4
    assert "the GPU's memory is full" in capsys.readouterr().err
    del held
