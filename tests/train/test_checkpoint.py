"""Checkpoints: the last two and the best; off the training thread; full disks and damage are said, nothing is lost."""

import json
import pickle
import resource
import threading
import time
from pathlib import Path

import pytest
import torch

from fastres.evaluate.__main__ import main as evaluate_main
from fastres.machine.errors import DataError, UsageError
from fastres.model.reading import read_weights
from fastres.train import checkpoint
from fastres.train import run as run_module
from fastres.train.checkpoint import Position, checkpoints_in, load_checkpoint, save_checkpoint
from fastres.train.saving import CheckpointWriter, EverySeconds, interval
from tests.support.tiny_runs import stop_after, train_tiny

STATE = {"network": {"w": torch.arange(4.0)}, "images_seen": 3, "stage": {"errors": [1.5], "best": float("inf")}}


def names(folder: Path) -> list[tuple]:
    return [(saved.position.epoch, saved.error) for saved in checkpoints_in(folder)]


def test_the_last_two_and_the_best_are_kept(tmp_path):
    for epoch, error in enumerate([50.0, 20.0, 30.0, None, 20.0, 40.0, None]):
        save_checkpoint(tmp_path, Position(0, epoch), STATE, error)
    assert names(tmp_path) == [(1, 20.0), (5, 40.0), (6, None)]  # of equals the earlier
    save_checkpoint(tmp_path, Position(1), STATE, 10.0)
    save_checkpoint(tmp_path, Position(1, 1), STATE, 11.0)
    assert names(tmp_path) == [(0, 10.0), (1, 11.0)]


def test_what_is_saved_is_a_copy_of_the_moment(tmp_path, monkeypatch):
    """The training thread goes on changing weights while they are written; the next save waits for the one before."""
    weight, may_write, order = torch.zeros(3), threading.Event(), []
    original = checkpoint.write_atomic

    def slow(path, content):
        assert threading.current_thread().name.startswith("checkpoint")
        may_write.wait(10)
        original(path, content)
        order.append("written")

    monkeypatch.setattr(checkpoint, "write_atomic", slow)
    writer = CheckpointWriter(tmp_path)
    writer.save(Position(step=1), {"network": {"w": weight}})
    weight += 1
    threading.Timer(0.2, lambda: (order.append("released"), may_write.set())).start()
    writer.save(Position(step=2), {"network": {"w": weight}})
    order.append("next save begins")
    writer.close()
    assert order[:3] == ["released", "written", "next save begins"]
    first, second = (torch.load(s.path, weights_only=True)["network"]["w"] for s in checkpoints_in(tmp_path))
    assert first.tolist() == [0, 0, 0] and second.tolist() == [1, 1, 1]


def test_when_a_checkpoint_is_due():
    assert [step for step in range(1, 11) if interval(3).due(step)] == [3, 6, 9]
    assert not any(interval(0).due(step) for step in range(1, 100))
    with pytest.raises(UsageError, match="--checkpoint-every -1"):
        interval(-1)
    assert isinstance(interval(None), EverySeconds) and not interval(None).due(1)
    timer = EverySeconds(0.05)
    time.sleep(0.06)
    assert timer.due(1)
    timer.saved()
    assert not timer.due(2)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "truncated": content[: len(content) // 3], "empty": b""}[how])


@pytest.mark.fault(24)
@pytest.mark.parametrize("how", ["flipped", "truncated", "empty"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(tmp_path, capsys, how):
    for epoch in (1, 2):
        save_checkpoint(tmp_path, Position(0, epoch), STATE)
    older, newer = (saved.path for saved in checkpoints_in(tmp_path))
    damage(newer, how)
    assert load_checkpoint(tmp_path)[0] == Position(0, 1)
    assert str(newer) in (said := capsys.readouterr().err) and "trying the one before it" in said
    damage(older, how)
    with pytest.raises(DataError, match="all 2 checkpoints are damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.slow
@pytest.mark.fault(24)
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(packed, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        train_tiny(packed, tmp_path / "run", code=75)
    newest = checkpoints_in(tmp_path / "run" / "checkpoints")[-1]
    assert newest.position == Position(1, 1, 2)
    damage(newest.path, "flipped")
    assert train_tiny(packed, tmp_path / "run")["status"] == "done"
    assert "resuming in stage 2 after 1 of its epochs and 0 steps" in capsys.readouterr().err
    assert (newest.path.parent / f"{newest.path.name}.damaged").exists() and not newest.path.exists()


@pytest.mark.fault(24)
def test_a_run_whose_checkpoints_are_all_damaged_is_exit_3(packed, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        train_tiny(packed, tmp_path / "run", code=75)
    for saved in checkpoints_in(tmp_path / "run" / "checkpoints"):
        damage(saved.path, "truncated")
    train_tiny(packed, tmp_path / "run", code=3)
    assert "remove the run folder to start over" in capsys.readouterr().err


class Runs:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.fault(25)
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_pickled_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, how):
    """With the right digest in its name: whoever can write the file can write that too."""
    ran = tmp_path / "ran"
    (tmp_path / "c").mkdir()
    if how == "torch":
        save_checkpoint(tmp_path / "c", Position(), {"network": Runs(ran)})
    else:
        content = pickle.dumps({"network": Runs(ran)})
        digest = checkpoint.hashlib.sha256(content).hexdigest()[:16]
        (tmp_path / "c" / f"stage0-epoch000-step000000-{digest}.pt").write_bytes(content)
    with pytest.raises(DataError, match="holds more than tensors"):
        load_checkpoint(tmp_path / "c")
    assert not ran.exists()
    pickle.loads(pickle.dumps(Runs(ran)))
    assert ran.exists(), "the trap works"


def test_a_checkpoint_that_cannot_be_removed_stays_and_is_said(tmp_path, monkeypatch, capsys):
    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    for epoch in range(3):
        if epoch == 2:
            monkeypatch.setattr(Path, "unlink", refused)
        save_checkpoint(tmp_path, Position(0, epoch), {"network": {}})
    assert len(checkpoints_in(tmp_path)) == 3
    assert "could not be removed (Read-only file system)" in capsys.readouterr().err


@pytest.fixture
def no_room():
    """no_room(bytes): this process's files cannot grow beyond that, as on a full disk; None: again they can."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.fault(26)
def test_a_disk_full_for_a_while_costs_nothing_but_checkpoints(packed, tmp_path, monkeypatch, capsys, no_room):
    """Full during the second stage: said, the last good checkpoint stays, and the run ends as if nothing had been."""
    begin, folder, seen = run_module.Run.begin_stage, tmp_path / "run", []

    def filling(self, index):
        self.writer.wait()
        seen.append([saved.position.stage for saved in checkpoints_in(folder / "checkpoints")])
        no_room(100_000 if index == 1 else None)
        return begin(self, index)

    monkeypatch.setattr(run_module.Run, "begin_stage", filling)
    assert train_tiny(packed, folder)["status"] == "done"
    said = capsys.readouterr().err
    assert said.count("checkpoint not written") == 2 and "File too large" in said
    assert seen == [[], [1], [1], [1, 3]], "positions before each stage: the second stage's two were lost"
    assert not list(folder.rglob("*.fastres-tmp"))


@pytest.mark.slow
@pytest.mark.fault(26)
def test_a_disk_full_at_a_stop_or_at_the_end_is_exit_4(packed, tmp_path, monkeypatch, capsys, no_room):
    folder, begin = tmp_path / "run", run_module.Run.begin_stage

    def filling(self, index):
        self.writer.wait()
        no_room(100_000 if index == 3 else None)
        return begin(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Run, "begin_stage", filling)
        train_tiny(packed, folder, code=4)
        assert "final.safetensors: could not write" in capsys.readouterr().err
        no_room(None)
        assert load_checkpoint(folder / "checkpoints")[0] == Position(3)
        stop_after(patch, 4)
        train_tiny(packed, folder, code=4)
        assert "stopped by a signal, and what was trained since the last checkpoint is lost" in capsys.readouterr().err
        no_room(None)
        assert load_checkpoint(folder / "checkpoints")[0] == Position(3)
    assert train_tiny(packed, folder)["status"] == "done"


@pytest.mark.slow
def test_the_best_checkpoint_can_be_evaluated(packed, tmp_path, capsys):
    train_tiny(packed, tmp_path / "run", "--checkpoint-every", "2")
    found = checkpoints_in(tmp_path / "run" / "checkpoints")
    scored = [saved for saved in found if saved.error is not None]
    assert 2 <= len(found) <= 3 and scored
    best = min(scored, key=lambda saved: saved.error)
    capsys.readouterr()
    assert evaluate_main([str(best.path), "--data", str(packed), "--json"]) == 0
    errors = json.loads(capsys.readouterr().out)["errors"]["expsum"]
    assert errors["centre"]["top1"] == pytest.approx(best.error)
    assert set(read_weights(best.path)) >= {"conv1.weight", "fc.bias"}


@pytest.mark.slow
def test_stale_temporaries_are_swept_by_the_locks_owner(packed, tmp_path):
    train_tiny(packed, tmp_path / "run")
    stale = [
        tmp_path / "run" / name for name in (".summary.json.1234.fastres-tmp", "checkpoints/.stage0.pt.99.fastres-tmp")
    ]
    for path in stale:
        path.write_bytes(b"half")
    kept = tmp_path / "run" / ".notes.2024.tmp"
    kept.write_bytes(b"a user's")
    train_tiny(packed, tmp_path / "run", "--set", "batch_size=7", code=2)  # another configuration: nothing is touched
    assert all(path.exists() for path in stale)
    train_tiny(packed, tmp_path / "run")
    assert not any(path.exists() for path in stale) and kept.exists()
