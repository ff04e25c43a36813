"""SIGKILL at chosen and at random moments; the same command again; the same final weights, bit for bit (CPU)."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastres.data.manifest import sha256_of
from fastres.track.log import read_log
from fastres.train.checkpoint import checkpoints_in, load_checkpoint
from tests.conftest import TINY_FILE
from tests.support.fork_server import PLACES, Runs, place_of

ROOT = Path(__file__).parents[2]
KILLS = 20


@pytest.fixture(scope="module")
def runs():
    with Runs() as server:
        yield server


@pytest.fixture(scope="module")
def arguments(packed):
    """The command line of a run in a folder: 18 steps of 3 an epoch, saved after every second."""
    return lambda folder, every=2: [
        "--schedule",
        TINY_FILE,
        "--data",
        packed,
        "--run-dir",
        folder,
        "--wandb",
        "off",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--checkpoint-every",
        every,
    ]


@pytest.fixture(scope="module")
def reference(runs, arguments, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert runs.finish(arguments(folder, 0)) == 0
    return folder


def assert_same_end(folder: Path, reference: Path) -> None:
    assert sha256_of(folder / "final.safetensors") == sha256_of(reference / "final.safetensors")
    epochs = [
        [(r["at"], r["val_loss"], r["train_loss"]) for r in read_log(f / "log.jsonl") if r["event"] == "epoch"]
        for f in (folder, reference)
    ]
    assert epochs[0] == epochs[1] and len(epochs[0]) == 6
    assert not [path.name for path in folder.rglob("*.fastres-tmp")], "left by a killed writer"


@pytest.mark.parametrize("place", PLACES)
def test_every_place_to_be_killed_at_is_in_the_code(place):
    owner, name = place_of(place)
    assert callable(getattr(owner, name))


@pytest.mark.fault(21)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("step", 1),
        ("step", 3),
        ("step", 4),
        ("step", 9),
        ("step", 11),
        ("step", 18),
        ("border", 2),
        ("border", 3),
        ("validation", 1),
        ("validation", 4),
        ("evaluation", 1),
        ("write", 5),
        ("write", 9),
        ("write", 19),
    ],
)
def test_killed_there_and_resumed(runs, arguments, reference, tmp_path, place, count):
    """Inside every kind of stage, in surgery, validation and evaluation, and with a file half written."""
    assert runs.kill_at(arguments(tmp_path / "run"), place, count) == -signal.SIGKILL
    assert not (tmp_path / "run" / "final.safetensors").exists()
    assert runs.finish(arguments(tmp_path / "run")) == 0
    assert_same_end(tmp_path / "run", reference)


@pytest.mark.fault(21)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_kills(runs, arguments, reference, tmp_path):
    """At least KILLS of them, at any moment, a checkpoint after every step; each run is killed until it is done."""
    chance, kills, folder, done = random.Random(0), 0, 0, []
    while kills < KILLS or not done:
        path = tmp_path / f"run{folder}"
        code = runs.kill_after(arguments(path, 1), chance.uniform(0.05, 2.5) if kills < KILLS else 600)
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            assert_same_end(path, reference)
            done.append(path)
            folder += 1
        else:
            kills += 1
            if (path / "checkpoints").is_dir() and checkpoints_in(path / "checkpoints"):
                load_checkpoint(path / "checkpoints")


KILL_WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from fastres.train.checkpoint import Position, load_checkpoint, save_checkpoint
from fastres.train.saving import CheckpointWriter

folder, chance, lost = Path(sys.argv[1]), random.Random(0), 0
state = {"network": {"weight": torch.randn(250_000)}}
save_checkpoint(folder, Position(), state)
for kill in range(100):
    position, loaded = load_checkpoint(folder)
    assert torch.equal(loaded["network"]["weight"], state["network"]["weight"])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        checkpoints = CheckpointWriter(folder)
        for step in range(position.step + 1, position.step + 1000):
            os.write(writer, b"x")
            checkpoints.save(Position(step=step), state)
    os.read(reader, 1)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(writer)
    begun = 1 + len(os.read(reader, 10_000))
    os.close(reader)
    # of the saves that were begun, all but the last two had ended: one was being written, one waited or copied
    assert load_checkpoint(folder)[0].step >= position.step + begun - 2, (position, begun)
    lost += len(list(folder.glob(".*.fastres-tmp")))
    for path in folder.glob(".*.fastres-tmp"):
        path.unlink()
print(lost)
"""


@pytest.mark.fault(23)
@pytest.mark.slow
def test_a_hundred_kills_while_checkpoints_are_written(tmp_path):
    """The latest always loads. Some of the kills must have met a file half written, else this proves little."""
    done = subprocess.run([sys.executable, "-c", KILL_WRITERS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "checkpoint" not in done.stderr, "none was found damaged"
    assert int(done.stdout) >= 10
