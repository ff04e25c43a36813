"""The W&B mirror and its server: none of a network's failures slows or stops a run, or loses a point."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.wandb_records import transaction_logs
from tests.support.wandb_server import Answer, Refuse, Stall, Stalling, history, serving

pytestmark = pytest.mark.usefixtures("no_login")
ROOT = Path(__file__).resolve().parents[2]


TRAIN = """
import sys, time
from pathlib import Path
from fastres.machine.command import run_command
from fastres.track.run_dir import RunDir
from fastres.track.mirror import open_wandb

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


def train(tmp_path, port, timeout=30):
    """A process that logs to a W&B server on `port`: seconds, close(), exit code, wall, stderr."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TRAIN, str(tmp_path / "run"), str(timeout)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        env=client(port),
    )
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
    assert code == 7 and wall < 60
    assert seconds < 1, "1,000 points; a call that waits for the port would take its timeout"
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


@pytest.mark.slow
@pytest.mark.fault(29)
def test_a_bad_key_is_said_once_and_leaves_an_offline_run(tmp_path):
    with serving(Refuse) as server:
        _, command, code, _, errors = train(tmp_path, server.server_port)
    assert code == 7 and "cannot be reached" in errors and "offline-run-" in command
    assert b"33.125" in transaction_logs(tmp_path / "run")


@pytest.mark.slow
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
        _, command, code, wall, errors = train(tmp_path, server.server_port, timeout=20)
    assert code == 7 and wall < 40 and errors.count("\n") == 1 and "left behind" in errors
    with serving(Answer) as server:
        subprocess.run(
            [sys.executable, "-m", *command.split()],
            env=client(server.server_port),
            timeout=60,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        points = history(server)
    assert len(points) == 1001 and points[-1]["val/top1_err"] == 33.125


@pytest.mark.fault(29)
@pytest.mark.slow
def test_a_server_that_stalls_after_the_first_answer_is_left_behind(tmp_path):
    with serving(Stall) as server:
        _, command, code, wall, errors = train(tmp_path, server.server_port, timeout=3)
        assert code == 7 and wall < 20
        assert errors.count("\n") == 1 and "left behind" in errors
        assert command == "None" or command.startswith("wandb sync --include-online "), (
            "W&B may have made its folder by now"
        )
        _, command, code, wall, errors = train(tmp_path, server.server_port, timeout=60)
        assert code == 7 and wall < 90
        assert errors.count("\n") == 1 and "cannot be reached" in errors and "offline-run-" in command
        assert b"33.125" in transaction_logs(tmp_path / "run")
