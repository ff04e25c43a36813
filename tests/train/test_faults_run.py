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

from fastres.data.ahead import Ahead
from fastres.data.resident import Resident
from fastres.machine.command import run_command
from fastres.stage.step import EagerStep
from fastres.track.mirror import WandbMirror
from fastres.train import command as train_module
from fastres.train import run as run_module
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
