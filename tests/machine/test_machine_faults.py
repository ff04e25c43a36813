"""What the machine does that nobody foresaw: one sentence, exit 4, the traceback in a file. A bug keeps its own."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastres.data import engines
from fastres.data.manifest import load_manifest
from fastres.machine import memory
from fastres.machine.command import run_command
from fastres.machine.errors import MachineError, machine_fault, of_the_machine
from fastres.stage.stage_run import StageRun
from fastres.train import command as train_command
from tests.conftest import TINY_FILE
from tests.support.tiny_runs import train_tiny

CPU = torch.device("cpu")
FAULTS = [
    (OSError(errno.EIO, os.strerror(errno.EIO), "/data/x"), "/data/x: Input/output error"),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x"), "check the permissions"),
    (MemoryError(), "not enough memory"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory: 8 bytes"), "memory"),
]


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("error,words", FAULTS)
def test_a_command_says_it_and_keeps_the_traceback(error, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_command(raising(error)) == 4
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said and "raise error" in kept.read_text()


@pytest.mark.parametrize("bug", [ValueError("x"), KeyError("x"), RuntimeError("shapes do not match"), TypeError("x")])
def test_a_bug_keeps_its_traceback(bug):
    assert not of_the_machine(bug)
    with pytest.raises(type(bug)):
        run_command(raising(bug))


def test_a_place_that_takes_no_file_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    try:
        raising(OSError(errno.EIO, "broken"))()
    except OSError as error:
        assert "could not be written; it ended in main, line" in str(machine_fault(error, tmp_path / "gone too"))


@pytest.mark.parametrize("error,words", FAULTS)
def test_a_run_keeps_it_in_its_folder_and_goes_on_with_the_same_command(error, words, packed, tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageRun, "training_mode", lambda self: raising(error)())
        summary = train_tiny(packed, folder, "--no-evaluation", code=4)
    (kept,) = folder.glob("traceback-*.txt")
    said = capsys.readouterr().err
    assert words in said and str(kept) in said and "training_mode" in kept.read_text()
    assert summary["exit_code"] == 4 and summary["status"] == "failed" and words in summary["error"]


def test_images_that_do_not_fit_are_known_before_they_are_read(packed, tmp_path, monkeypatch, capsys):
    need = sum(load_manifest(packed).files[f"{split}.images.npy"]["bytes"] for split in ("train", "val"))
    monkeypatch.setattr(engines, "free_bytes", lambda: need - 1)
    monkeypatch.setattr(engines, "open_split", lambda *_: pytest.fail("nothing was to be read"))
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--run-dir", str(tmp_path / "run")]
    for extra in ([], ["--dry-run"]):
        assert run_command(lambda extra=extra: train_command.main([*arguments, *extra])) == 4
        said = capsys.readouterr().err
        assert f"need {need / 1e9:.2f} GB of memory" in said and "are free" in said and "--engine ffcv" in said
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(engines, "free_bytes", lambda: 3 * need - 1)
    with pytest.raises(MachineError, match="need"):
        engines.check_memory("resident", packed, load_manifest(packed), ("train", "val"), CPU)
    for free, engine in ((3 * need, "resident"), (None, "resident"), (0, "ffcv")):
        monkeypatch.setattr(engines, "free_bytes", lambda free=free: free)
        engines.check_memory(engine, packed, load_manifest(packed), ("train", "val"), CPU)


def test_memory_that_ends_while_they_are_read_is_the_same_sentence(packed, monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "resident", lambda *_: raising(MemoryError())())
    with pytest.raises(MachineError, match="the images of train need .* --engine ffcv"):
        engines.open_split("resident", packed, load_manifest(packed), "train", CPU)


def test_free_memory_is_the_least_of_what_is_set(tmp_path, monkeypatch):
    everything = memory.free_bytes()
    assert 1e6 < everything < 1e14
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_bytes() == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes() > 1_500_000
    monkeypatch.setattr(memory, "Path", lambda _: tmp_path / "no such system")
    assert memory.free_bytes() is None


@pytest.mark.slow
def test_the_processs_own_limit_counts():
    """In a process of its own: a limit below what this one holds would end it."""
    limit = 64 << 30
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "from fastres.machine.memory import _own_limit; print(_own_limit())"
    )
    if resource.getrlimit(resource.RLIMIT_AS)[1] not in (resource.RLIM_INFINITY, -1):
        pytest.skip("a limit is set already")
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert 0 < int(found) < limit
