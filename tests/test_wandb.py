"""The W&B mirror against real W&B: what it writes, and that no failure of it slows or stops a run."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastres.errors import MachineError, UsageError
from fastres.track import wandb as mirror_module
from fastres.track.run_dir import RunDir
from fastres.track.wandb import NoWandb, WandbMirror, has_login, open_wandb
from tests.wandb_server import Answer, Refuse, Stall, Stalling, history, serving

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {"optimizer": {"lr": 0.0625}, "schedule": "demo"}
POINT = {"train/loss": 1.5, "speed/img_per_s": 900.0, "lr": 0.01, "images_seen": 64}
EPOCH = {"val/top1_err": 45.5, "val/top5_err": 12.5, "stage/index": 1, "epoch": 3}


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    """No key, no proxy and no server of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def run_dir(tmp_path):
    with RunDir.open(tmp_path / "run", CONFIG) as run:
        yield run


def transaction_logs(run_dir: Path) -> bytes:
    """What all W&B runs of a folder have on disk, for `wandb sync`."""
    return b"".join(file.read_bytes() for file in sorted(run_dir.glob("wandb/*run-*/*.wandb")))


def test_an_offline_run_holds_every_key_and_no_secret(run_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTRES_PASSWORD", "hunter2hunter2")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "picture.png")
    for _ in range(2):  # twice: a resumed run folder continues the same W&B run
        mirror = open_wandb(None, run_dir, "fastres-test", "a name", CONFIG, ["tag-a"])
        mirror.log({**POINT, "train/loss": np.float32(1.5)})
        mirror.log({**EPOCH, "val/loss": float("nan")})
        mirror.image("pictures/error", tmp_path / "picture.png")
        mirror.summary({"errors/12-crop_top1": 44.25})
        command = mirror.close(60)
        assert mirror.mode == "offline" and mirror.dropped == 0
        directory = Path(command.removeprefix("wandb sync "))
        assert directory.parent == run_dir.path / "wandb" and list(directory.glob("*.wandb"))
    run_id = (run_dir.path / "wandb" / "run_id").read_text().strip()
    assert len({*run_dir.path.glob(f"wandb/offline-run-*-{run_id}")}) == 2 == len([*run_dir.path.glob("wandb/*run-*")])
    content = transaction_logs(run_dir.path)
    for text in (*POINT, *EPOCH, "val/loss", "val/*", "train/*", "pictures/error", "errors/12-crop_top1", "44.25",
                 "fastres-test", "a name", "tag-a", "0.0625", "demo", run_id):
        assert text.encode() in content, text
    for text in ("hunter2", "FASTRES_PASSWORD", sys.executable, "pytest"):
        assert text.encode() not in content, text
    names = {file.name for file in run_dir.path.glob("wandb/*run-*/files/**/*")}
    assert not names & {"wandb-metadata.json", "requirements.txt", "output.log", "diff.patch", "code"}


TRAIN = """
import sys, time
from pathlib import Path
from fastres.errors import run_command
from fastres.track.run_dir import RunDir
from fastres.track.wandb import open_wandb

def main():
    with RunDir.open(Path(sys.argv[1]), {}) as run:
        mirror = open_wandb("online", run, "p", "n", {})
        started = time.perf_counter()
        for step in range(1000):
            mirror.log({"train/loss": 0.5, "images_seen": step})
        print(time.perf_counter() - started, flush=True)
        mirror.log({"val/top1_err": 33.125, "epoch": 1})
        print(mirror.close(float(sys.argv[2])), flush=True)
    return 7

sys.exit(run_command(main))
"""


def client(port) -> dict:
    """The environment of a process whose W&B server is on `port`."""
    return {**os.environ, "WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "0" * 40}


def train(tmp_path, port, timeout=10):
    """A process that logs to a W&B server on `port`: seconds, close(), exit code, wall, stderr."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "error", "-c", TRAIN, str(tmp_path / "run"), str(timeout)], cwd=ROOT,
                          capture_output=True, text=True, timeout=100, env=client(port))
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
    seconds, command = done.stdout.splitlines()
    return float(seconds), command, done.returncode, time.monotonic() - started, done.stderr


@contextmanager
def swallowing_port():
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.fault(29)
def test_a_port_that_swallows_costs_nothing_and_loses_nothing(tmp_path):
    with swallowing_port() as port:
        seconds, command, code, wall, errors = train(tmp_path, port)
    assert code == 7 and wall < 20
    assert seconds < 0.05, "1,000 points"
    assert errors.count("\n") == 1 and "cannot be reached" in errors
    assert command.startswith("wandb sync ")
    assert b"val/top1_err" in transaction_logs(tmp_path / "run") and b"33.125" in transaction_logs(tmp_path / "run")


@pytest.mark.fault(29)
@pytest.mark.slow
def test_no_network_is_said_once_and_leaves_an_offline_run(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _, command, code, _, errors = train(tmp_path, port)
    assert code == 7 and errors.count("\n") == 1 and "refused" in errors and "offline-run-" in command
    assert b"33.125" in transaction_logs(tmp_path / "run")


@pytest.mark.fault(29)
def test_a_bad_key_is_said_once_and_leaves_an_offline_run(tmp_path):
    with serving(Refuse) as server:
        _, command, code, _, errors = train(tmp_path, server.server_port)
    assert code == 7 and "cannot be reached" in errors and "offline-run-" in command
    assert b"33.125" in transaction_logs(tmp_path / "run")


def test_a_server_receives_every_point_on_its_axis(tmp_path):
    with serving(Answer) as server:
        _, command, code, _, errors = train(tmp_path, server.server_port)
        points = history(server)
        (opened, *_) = [variables for name, variables in server.asked if name == "UpsertBucket"]
    assert opened["program"] == "fastres", "not a path of this machine"
    assert [opened[key] for key in ("host", "repo", "commit", "jobType")] == [None] * 4
    assert code == 7 and command == "None" and errors == "", "online, uploaded, nothing left to sync"
    assert [point["images_seen"] for point in points[:-1]] == list(range(1000))
    assert points[-1]["val/top1_err"] == 33.125 and points[-1]["epoch"] == 1


@pytest.mark.fault(29)
@pytest.mark.slow
def test_a_network_that_dies_under_a_run_is_made_good_by_wandb_sync(tmp_path):
    with serving(Stalling) as server:
        _, command, code, wall, errors = train(tmp_path, server.server_port, timeout=6)
    assert code == 7 and wall < 15 and errors.count("\n") == 1 and "left behind" in errors
    with serving(Answer) as server:
        subprocess.run([sys.executable, "-m", *command.split()], env=client(server.server_port), timeout=60, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        points = history(server)
    assert len(points) == 1001 and points[-1]["val/top1_err"] == 33.125


@pytest.mark.fault(29)
@pytest.mark.slow
def test_a_server_that_stalls_after_the_first_answer_is_left_behind(tmp_path):
    with serving(Stall) as server:
        _, command, code, wall, errors = train(tmp_path, server.server_port, timeout=3)
        assert code == 7 and wall < 8
        assert errors.count("\n") == 1 and "left behind" in errors and command == "None"
        _, command, code, wall, errors = train(tmp_path, server.server_port, timeout=60)
        assert code == 7 and wall < 40
        assert errors.count("\n") == 1 and "cannot be reached" in errors and "offline-run-" in command
        assert b"33.125" in transaction_logs(tmp_path / "run")


@pytest.mark.fault(29)
def test_a_killed_child_is_said_once_and_the_run_goes_on(run_dir, capfd):
    mirror = open_wandb("offline", run_dir, "p", "n", {})
    mirror._process.kill()
    deadline = time.monotonic() + 10
    while mirror.mode != "off" and time.monotonic() < deadline:
        mirror.log(POINT)
        time.sleep(0.01)
    assert mirror.mode == "off"
    mirror.log(POINT)
    started = time.monotonic()
    mirror.close()
    assert time.monotonic() - started < 1
    assert capfd.readouterr().err.count("W&B") == 1


@pytest.mark.fault(29)
def test_a_child_that_hangs_drops_points_and_is_left_behind(run_dir, capfd, monkeypatch):
    monkeypatch.setattr(mirror_module, "QUEUE_LENGTH", 100)
    mirror = open_wandb("offline", run_dir, "p", "n", {})
    mirror._process.send_signal(signal.SIGSTOP)
    started = time.perf_counter()
    for _ in range(5_000):
        mirror.log(POINT)
    assert time.perf_counter() - started < 0.5
    assert mirror.dropped > 1_000 and len(mirror._queue) <= 100
    started = time.monotonic()
    mirror.close(timeout=0.5)
    assert time.monotonic() - started < 2
    assert mirror._process.poll() == -signal.SIGKILL
    assert "left behind" in capfd.readouterr().err


DIE = """
import os, signal, sys, time
from pathlib import Path
from fastres.track.run_dir import RunDir
from fastres.track.wandb import open_wandb
mirror = open_wandb("offline", RunDir.open(Path(sys.argv[1]), {}), "p", "n", {})
mirror.log({"val/top1_err": 33.125, "epoch": 1})
print(mirror._process.pid, flush=True)
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault(29)
def test_sigkill_of_the_run_leaves_no_orphan_and_loses_no_point(tmp_path):
    done = subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, timeout=60)
    child = Path(f"/proc/{int(done.stdout)}")
    deadline = time.monotonic() + 20
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.returncode == -signal.SIGKILL
    assert time.monotonic() < deadline, "the child outlived its run by 20 s"
    assert b"33.125" in transaction_logs(tmp_path)
    assert not processes_mentioning(str(int(done.stdout))), "wandb-core stayed"


def processes_mentioning(pid: str) -> list[str]:
    """Command lines of live wandb-core processes that serve process `pid`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "wandb-core" in words[0] and pid in words:
            found.append(" ".join(words))
    return found


@pytest.mark.fault(29)
def test_a_folder_that_cannot_be_made_turns_the_mirror_off(run_dir, capfd):
    (run_dir.path / "wandb").write_text("a file is in the way")
    assert isinstance(open_wandb("offline", run_dir, "p", "n", {}), NoWandb)
    assert "W&B could not start" in capfd.readouterr().err


@pytest.mark.fault(18)
def test_without_wandb_installed(run_dir, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what an import of a missing package meets
    quiet = open_wandb(None, run_dir, "p", "n", {})
    assert isinstance(quiet, NoWandb) and capfd.readouterr().err.count("\n") == 1
    quiet.log(POINT)
    quiet.image("key", Path("nowhere.png"))
    quiet.summary({})
    assert quiet.close() is None
    for mode in ("online", "offline"):
        with pytest.raises(MachineError, match="pip install wandb"):
            open_wandb(mode, run_dir, "p", "n", {})
    assert isinstance(open_wandb("off", run_dir, "p", "n", {}), NoWandb)
    assert not (run_dir.path / "wandb").exists()


def test_modes(run_dir, monkeypatch, tmp_path):
    chosen = []
    monkeypatch.setattr(mirror_module, "WandbMirror", lambda mode, folder, opening: chosen.append(mode))
    with pytest.raises(UsageError, match="onlin.*online, offline, off"):
        open_wandb("onlin", run_dir, "p", "n", {})
    open_wandb(None, run_dir, "p", "n", {})
    open_wandb("online", run_dir, "p", "n", {})  # no login
    assert not has_login() and chosen == ["offline", "offline"]
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    open_wandb(None, run_dir, "p", "n", {})
    monkeypatch.setenv("WANDB_BASE_URL", "http://elsewhere:80")
    open_wandb(None, run_dir, "p", "n", {})
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    open_wandb(None, run_dir, "p", "n", {})
    monkeypatch.setenv("WANDB_MODE", "offline")
    open_wandb(None, run_dir, "p", "n", {})
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert isinstance(open_wandb(None, run_dir, "p", "n", {}), NoWandb)
    assert chosen == ["offline", "offline", "online", "offline", "online", "offline"]
    assert WandbMirror is not mirror_module.WandbMirror
