"""The W&B mirror against real W&B: what it writes, and that no failure of it slows or stops a run."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastres.machine.errors import MachineError, UsageError
from fastres.track import mirror as mirror_module
from fastres.track import mirror_child, mirror_folder
from fastres.track.mirror import NoWandb, WandbMirror, has_login, open_wandb
from fastres.track.run_dir import RunDir
from tests.support.wandb_records import items, of_kind, records, transaction_logs

pytestmark = pytest.mark.usefixtures("no_login")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"optimizer": {"lr": 0.0625}, "schedule": "demo"}
POINT = {"train/loss": 1.5, "speed/img_per_s": 900.0, "lr": 0.01, "images_seen": 64}
EPOCH = {"val/top1_err": 45.5, "val/top5_err": 12.5, "stage/index": 1, "epoch": 3}


@pytest.fixture
def run_dir(tmp_path):
    with RunDir.open(tmp_path / "run", CONFIG) as run:
        yield run


def test_the_child_takes_no_file_of_ours_for_a_module_of_wandbs(run_dir):
    """log.py and page.py lie beside it; Python puts a script's folder before all others unless it is told not to."""
    mirror = open_wandb("offline", run_dir, "p", "n", {})
    words = mirror._process.args
    mirror._process.kill()
    mirror.close(5)
    assert "-P" in words


@pytest.mark.slow
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
        parts = [Path(word) for word in command.removeprefix("wandb sync ").split()]
        assert all(part.parent == run_dir.path / "wandb" and list(part.glob("*.wandb")) for part in parts)
    run_id = (run_dir.path / "wandb" / "run_id").read_text().strip()
    assert set(parts) == {*run_dir.path.glob(f"wandb/offline-run-*-{run_id}")} == {*run_dir.path.glob("wandb/*run-*")}
    assert len(parts) == 2, "the hint names the part before the resume as well"
    content = transaction_logs(run_dir.path)
    for text in (
        *POINT,
        *EPOCH,
        "val/loss",
        "val/*",
        "train/*",
        "pictures/error",
        "errors/12-crop_top1",
        "44.25",
        "fastres-test",
        "a name",
        "tag-a",
        "0.0625",
        "demo",
        run_id,
    ):
        assert text.encode() in content, text
    for text in ("hunter2", "FASTRES_PASSWORD", sys.executable, "pytest"):
        assert text.encode() not in content, text
    names = {file.name for file in run_dir.path.glob("wandb/*run-*/files/**/*")}
    assert not names & {"wandb-metadata.json", "requirements.txt", "output.log", "diff.patch", "code"}


@pytest.mark.slow
def test_what_a_resumed_run_repeats_is_mirrored_once(run_dir):
    """Killed after its third epoch, going on from the checkpoint of its first: points of either axis."""
    for epochs in ((1, 2, 3), (2, 3, 4)):
        mirror = open_wandb("offline", run_dir, "p", "n", CONFIG)
        for epoch in epochs:
            mirror.log({**POINT, "images_seen": 100 * epoch - 50})
            mirror.log({**POINT, "images_seen": 100 * epoch})
            mirror.log({**POINT, "images_seen": 100 * epoch})  # a step's point and its epoch's may fall together
            mirror.log({**EPOCH, "epoch": epoch})
        command = mirror.close(60)
    history = [
        items(point.item) for word in command.split()[2:] for file in Path(word).glob("*.wandb")
        for point in of_kind(records(file), "history")
    ]  # fmt: skip
    assert [point["epoch"] for point in history if "epoch" in point] == [1, 2, 3, 4]
    seen = [point["images_seen"] for point in history if "images_seen" in point]
    assert seen == [50, 100, 100, 150, 200, 200, 250, 300, 300, 350, 400, 400]


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
    assert time.monotonic() - started < 5
    assert capfd.readouterr().err.count("W&B") == 1


@pytest.mark.fault(29)
def test_a_child_that_hangs_drops_points_and_is_left_behind(run_dir, capfd, monkeypatch):
    monkeypatch.setattr(mirror_module, "QUEUE_LENGTH", 100)
    mirror = open_wandb("offline", run_dir, "p", "n", {})
    mirror._process.send_signal(signal.SIGSTOP)
    started = time.thread_time()
    for _ in range(5_000):
        mirror.log(POINT)
    assert time.thread_time() - started < 0.5
    assert mirror.dropped > 1_000 and len(mirror._queue) <= 100
    started = time.monotonic()
    mirror.close(timeout=0.5)
    assert time.monotonic() - started < 5  # half a second, and what a busy machine adds
    assert mirror._process.poll() == -signal.SIGKILL
    assert "left behind" in capfd.readouterr().err


DIE = """
import os, signal, sys, time
from pathlib import Path
from fastres.track.run_dir import RunDir
from fastres.track.mirror import open_wandb
mirror = open_wandb("offline", RunDir.open(Path(sys.argv[1]), {}), "p", "n", {})
mirror.log({"val/top1_err": 33.125, "epoch": 1})
print(mirror._process.pid, flush=True)
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
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


@pytest.mark.parametrize("content", [b"", b"a/../b\n", b"\xff\xfe", b"*\n", b"x" * 100])
def test_a_damaged_id_is_drawn_anew_and_damaged_notes_are_none(tmp_path, content):
    for name in ("run_id", "uploaded"):
        (tmp_path / name).write_bytes(content)
    drawn = mirror_folder.run_id(tmp_path)
    assert re.fullmatch("[0-9a-f]{8}", drawn) and mirror_folder.run_id(tmp_path) == drawn
    assert mirror_folder.sync_command(tmp_path, drawn) is None


@pytest.mark.parametrize("content", ["[1]", "7", '{"epoch": "x", "images_seen": 5}', "{", "[" * 99_999, "null"])
def test_a_damaged_mark_repeats_points_and_stops_nothing(tmp_path, content):
    (tmp_path / "mirrored.json").write_text(content)
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "mirrored.json.tmp").symlink_to(mine)
    mark = mirror_child.Mark(str(tmp_path / "mirrored.json"))
    assert mark.is_new({"epoch": 1, "loss": 0.5}) and mark.is_new({"images_seen": 6})
    assert mine.read_text() == "mine"
