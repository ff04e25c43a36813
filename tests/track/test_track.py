"""The run folder and what is written to it: what must survive kills, full disks and second processes."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fastres.machine.errors import DataError, MachineError, UsageError
from fastres.machine.files import write_atomic
from fastres.track.log import JsonLines, read_log
from fastres.track.run_config import differences, flatten
from fastres.track.run_dir import RunDir
from tests.support.processes import start

CONFIG = {"optimizer": {"lr": 0.01, "nesterov": True}, "stages": [{"name": "fc", "epochs": 5}], "batch_size": 256}

HOLD = """
import json, sys, time
from pathlib import Path
from fastres.track.run_dir import RunDir
run = RunDir.open(Path(sys.argv[1]), json.loads(sys.argv[2]))
print("open", flush=True)
time.sleep(60)
"""


@pytest.mark.fault(19)
def test_a_live_process_refuses_a_second_and_sigkill_frees_the_folder(tmp_path):
    with start(HOLD, tmp_path / "run", json.dumps(CONFIG)) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UsageError, match=f"pid {holder.pid}.*another --run-dir"):
            RunDir.open(tmp_path / "run", CONFIG)
        holder.kill()
        holder.wait()
        with RunDir.open(tmp_path / "run", CONFIG) as run:
            assert (run.path / "lock").read_text() == f"{os.getpid()}\n"


def test_closing_gives_the_folder_back_and_refusal_keeps_the_holders_pid(tmp_path):
    with RunDir.open(tmp_path, CONFIG):
        with pytest.raises(UsageError, match=f"pid {os.getpid()}"):
            RunDir.open(tmp_path, CONFIG)
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    RunDir.open(tmp_path, CONFIG).close()


@pytest.mark.fault(19)
def test_another_configuration_is_refused_with_the_difference(tmp_path):
    RunDir.open(tmp_path, CONFIG).close()
    other = {"optimizer": {"lr": 0.02, "nesterov": True}, "stages": [{"name": "fc", "epochs": 5}], "width": 1}
    with pytest.raises(UsageError) as refusal:
        RunDir.open(tmp_path, other)
    lines = str(refusal.value).splitlines()
    assert "--run-dir" in lines[0]
    assert sorted(line.strip() for line in lines[1:]) == [
        "batch_size: 256 in the folder, not set now",
        "optimizer.lr: 0.01 in the folder, 0.02 now",
        "width: not set in the folder, 1 now",
    ]
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG, "a refused run must not touch the folder"
    RunDir.open(tmp_path, CONFIG).close()  # and the refusal gave the lock back


def test_tuples_and_numpy_numbers_are_the_same_configuration_after_a_round_trip(tmp_path):
    RunDir.open(tmp_path, {"side": np.int64(64), "mean": (0.5, np.float32(0.25)), "empty": (), "none": None}).close()
    RunDir.open(tmp_path, {"side": 64, "mean": [0.5, 0.25], "empty": [], "none": None}).close()


def test_flatten_names_every_value_as_set_does():
    assert flatten(CONFIG) == {
        "optimizer.lr": 0.01,
        "optimizer.nesterov": True,
        "stages.0.name": "fc",
        "stages.0.epochs": 5,
        "batch_size": 256,
    }
    assert differences(CONFIG, CONFIG) == []
    assert differences({"a": True}, {"a": 1}) == ["a: true in the folder, 1 now"]


@pytest.mark.fault(20)
def test_a_folder_that_cannot_be_made_is_exit_4_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", Path("/proc/fastres")):
        with pytest.raises(MachineError, match="another --run-dir"):
            RunDir.open(path, CONFIG)


def test_summary_says_whether_the_run_is_done(tmp_path):
    with RunDir.open(tmp_path, CONFIG) as run:
        assert run.summary() is None and not run.finished
        run.write_summary({"status": "running"})
        assert not run.finished
        run.write_summary({"status": "done", "errors": {"full": np.float32(28.5)}, "loss": float("nan")})
        assert run.finished
        assert run.summary() == {"status": "done", "errors": {"full": 28.5}, "loss": None}


@pytest.mark.parametrize("content", [b"", b'{"status": "do', b"[1]", b"\x00" * 40, b"\xff\xfe"])
@pytest.mark.parametrize("name", ["summary.json", "config.json"])
def test_a_damaged_file_is_data_with_a_remedy(tmp_path, name, content):
    RunDir.open(tmp_path, CONFIG).close()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*(remove it|another --run-dir)"), RunDir.open(tmp_path, CONFIG) as run:
        _ = run.finished
    (tmp_path / name).unlink()
    RunDir.open(tmp_path, CONFIG).close()


@pytest.mark.fault(26)
def test_write_atomic_leaves_the_old_content_when_the_disk_is_full(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        write_atomic(tmp_path / "a", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.fault(26, by_hand=True)
def test_a_file_system_that_turns_read_only_is_a_machine_fault(tmp_path, monkeypatch):
    """Then not even the temporary can be removed."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(MachineError, match="Read-only file system"):
        write_atomic(tmp_path / "a", b"new")


FILL_A_DISK = """
import resource, sys
from pathlib import Path
from fastres.machine.command import run_command
from fastres.track.log import JsonLines

def main():
    log = JsonLines(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # the kernel then takes part of a write, as a full disk
    for number in range(100):
        log.write("step", number=number, filler="x" * 3000)

sys.exit(run_command(main))
"""


@pytest.mark.fault(26)
def test_a_full_disk_is_a_sentence_and_exit_4(tmp_path):
    with start(FILL_A_DISK, tmp_path / "log.jsonl") as writer:
        _, errors = writer.communicate(timeout=20)
    assert writer.returncode == 4
    assert errors.startswith("error: ") and "log.jsonl" in errors and "Traceback" not in errors
    assert (tmp_path / "log.jsonl").stat().st_size == 10_000
    JsonLines(tmp_path / "log.jsonl").close()
    assert [record["number"] for record in read_log(tmp_path / "log.jsonl")] == [0, 1, 2]
