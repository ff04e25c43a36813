"""Files of a run that are another run's, lost or damaged: one sentence, and the run goes on where it can."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from fastres.machine.command import run_command
from fastres.model.reading import read_weights
from fastres.stage.step import EagerStep
from fastres.track.log import read_log
from fastres.train import command
from fastres.train.checkpoint import Position, checkpoints_in, load_checkpoint, save_checkpoint
from fastres.train.stage_ends import find_start
from tests.conftest import TINY_FILE
from tests.support.tiny_runs import stop_after, train_tiny

STEPS = 5  # of the schedule's 18: into the second epoch
FAST = ("--no-evaluation",)
SLOW = partial(pytest.param, marks=pytest.mark.slow)


def stopped(packed: Path, folder: Path, *extra, steps: int = STEPS) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        train_tiny(packed, folder, *FAST, *extra, code=75)
    return folder


def train(packed: Path, folder: Path) -> int:
    """The exit code, where no summary can be read."""
    words = ["--schedule", TINY_FILE, "--data", packed, "--run-dir", folder, "--wandb", "off", *FAST]
    return run_command(lambda: command.main([str(word) for word in words]))


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_tiny(packed, folder, *FAST)
    return folder


@pytest.fixture(scope="module")
def stopped_once(packed, tmp_path_factory):
    return stopped(packed, tmp_path_factory.mktemp("stopped") / "run")


@pytest.fixture
def run(stopped_once, tmp_path):
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def epochs(folder: Path) -> list[tuple]:
    keys = ("stage", "epoch", "train_loss", "val_loss", "val_top1_err")
    return [tuple(r[key] for key in keys) for r in read_log(folder / "log.jsonl") if r["event"] == "epoch"]


def assert_as(whole: Path, folder: Path) -> None:
    one, other = (read_weights(f / "final.safetensors") for f in (whole, folder))
    assert all(torch.equal(one[key], other[key]) for key in one) and epochs(folder) == epochs(whole)


@pytest.mark.fault(44)
@pytest.mark.parametrize("how", ["gone", SLOW("cut"), SLOW("empty"), SLOW("a line removed"), SLOW("a figure changed")])
def test_a_lost_log_is_restored_from_the_checkpoint(packed, run, whole, capsys, how):
    log = run / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    if how == "gone":
        log.unlink()
    elif how in ("empty", "cut"):
        log.write_bytes(b"" if how == "empty" else b"".join(lines)[:150])
    elif how == "a line removed":
        log.write_bytes(b"".join(line for line in lines if b'"event": "epoch"' not in line))
    else:
        log.write_bytes(b"".join(lines).replace(b'"val_top1_err": ', b'"val_top1_err": 1'))
    summary = train_tiny(packed, run, *FAST)
    said = capsys.readouterr().err
    assert summary["status"] == "done" and [stage["epochs"] for stage in summary["stages"]] == [1, 2, 1, 2]
    assert "log.jsonl: had lost 1 of 1 epochs' records, which are restored" in said
    assert_as(whole, run)


@pytest.mark.fault(44)
def test_a_log_that_is_removed_while_the_run_goes_on_is_there_at_the_end(packed, whole, tmp_path, monkeypatch, capsys):
    folder, done, original = tmp_path / "run", [], EagerStep.__call__

    def removing(self, *arguments):
        original(self, *arguments)
        done.append(1)
        if len(done) == STEPS:
            (folder / "log.jsonl").unlink()

    monkeypatch.setattr(EagerStep, "__call__", removing)
    assert train_tiny(packed, folder, *FAST)["status"] == "done"
    assert "had lost 6 of 6 epochs' records" in capsys.readouterr().err
    assert_as(whole, folder)


@pytest.mark.fault(44)
@pytest.mark.slow
def test_a_checkpoint_of_before_cannot_restore_it(packed, run, capsys):
    """An older version's says nothing of epochs: refused where the log has lost some, else as ever."""
    newest = checkpoints_in(run / "checkpoints")[-1]
    position, state = load_checkpoint(run / "checkpoints")
    for name in ("epochs", "config", "at"):
        del state[name]
    newest.path.unlink()
    save_checkpoint(run / "checkpoints", position, state)
    log = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").unlink()
    train_tiny(packed, run, *FAST, code=3)
    assert "has 0 of the 1 epochs before the newest checkpoint" in capsys.readouterr().err
    (run / "log.jsonl").write_bytes(log)
    assert train_tiny(packed, run, *FAST)["status"] == "done"


@pytest.mark.fault(44)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--seed", "1"), "seed: 1 in the folder, 0 now"),
        (("--set", "optimizer.lr=0.3"), "schedule.optimizer.lr: 0.3 in the folder, 0.05 now"),
        (("--precision", "bf16"), 'precision: "bf16" in the folder'),
    ],
)
def test_checkpoints_of_another_run_are_refused(packed, run, tmp_path, capsys, option, sentence):
    other = stopped(packed, tmp_path / "other", *option, steps=STEPS + 2)
    for file in (other / "checkpoints").iterdir():
        shutil.copy(file, run / "checkpoints")
    before = (run / "log.jsonl").read_bytes()
    capsys.readouterr()
    train_tiny(packed, run, *FAST, code=3)
    said = capsys.readouterr().err
    assert "the newest checkpoint is not this run's" in said and sentence in said
    assert (run / "log.jsonl").read_bytes() == before and said.count("error: ") == 1


@pytest.mark.fault(44)
def test_checkpoints_of_another_seed_from_before_are_refused(packed, run, capsys):
    newest = checkpoints_in(run / "checkpoints")[-1]
    position, state = load_checkpoint(run / "checkpoints")
    del state["config"], state["at"], state["epochs"]
    state["metadata"]["seed"] = 3
    newest.path.unlink()
    save_checkpoint(run / "checkpoints", position, state)
    train_tiny(packed, run, *FAST, code=3)
    assert "seed: 3 in the folder, 0 now" in capsys.readouterr().err


@pytest.mark.fault(44)
def test_a_renamed_checkpoint_is_refused(packed, run, capsys):
    newest = checkpoints_in(run / "checkpoints")[-1]
    newest.path.rename(newest.path.with_name(f"stage3-epoch001-step000000-{newest.digest}.pt"))
    train_tiny(packed, run, *FAST, code=3)
    assert "its name says stage 4 after 1 epochs and 0 steps" in capsys.readouterr().err


@pytest.mark.fault(44)
@pytest.mark.parametrize("log", ["whole", "gone"])
def test_lost_checkpoints_are_said_and_nothing_starts_anew(packed, tmp_path, whole, capsys, log):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    for name in ("summary.json", "final.safetensors", *(["log.jsonl"] if log == "gone" else [])):
        (folder / name).unlink()
    for file in (folder / "checkpoints").iterdir():
        file.unlink()
    before = sorted(str(path) for path in folder.rglob("*"))
    train_tiny(packed, folder, *FAST, code=3)
    said = capsys.readouterr().err
    assert "holds no checkpoint, though this run has saved some; restore them" in said and said.count("error: ") == 1
    assert [p for p in before if not Path(p).exists()] == [] and not (folder / "final.safetensors").exists()


@pytest.mark.fault(44)
@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(packed, tmp_path, whole, monkeypatch):
    """Also where an epoch is in its log already: the write was going on."""

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("fastres.train.saving.save_checkpoint", killed)
        train_tiny(packed, folder, *FAST)
    assert epochs(folder) and not checkpoints_in(folder / "checkpoints")
    assert train_tiny(packed, folder, *FAST)["status"] == "done"
    assert_as(whole, folder)


@pytest.mark.fault(44)
@pytest.mark.parametrize("what", ["removed", "moved", "replaced", "emptied"])
def test_a_run_folder_that_goes_away_is_exit_4(packed, tmp_path, monkeypatch, capsys, what):
    folder, done, original = tmp_path / "run", [], EagerStep.__call__

    def removing(self, *arguments):
        original(self, *arguments)
        done.append(1)
        if len(done) == STEPS:
            shutil.rmtree(folder) if what in ("removed", "emptied") else folder.rename(tmp_path / "elsewhere")
            if what in ("replaced", "emptied"):
                folder.mkdir()

    monkeypatch.setattr(EagerStep, "__call__", removing)
    train_tiny(packed, folder, *FAST, code=4)
    said = capsys.readouterr().err
    assert "the run folder was removed, moved or emptied" in said and "Traceback" not in said


@pytest.mark.fault(44)
@pytest.mark.parametrize("content", [b"{}", b'{"status": "done"}', b'{"status": "done", "stages": 3}', b"[" * 99_999])
def test_a_damaged_summary_is_a_sentence_or_written_anew(packed, tmp_path, whole, capsys, content):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (folder / "summary.json").write_bytes(content)
    assert train(packed, folder) == (0 if content == b"{}" else 3)
    if content != b"{}":
        assert "summary.json: is" in capsys.readouterr().err and (folder / "summary.json").read_bytes() == content
    (folder / "summary.json").unlink()
    assert train_tiny(packed, folder, *FAST)["status"] == "done"


@pytest.mark.fault(44)
@pytest.mark.slow
def test_stage_ends_of_another_seed_are_refused(packed, tmp_path, whole, capsys):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    other = tmp_path / "other"
    train_tiny(packed, other, *FAST, "--seed", "1")
    shutil.copytree(other / "stages", run / "stages", dirs_exist_ok=True)
    extra = ("--start-from", run, "--set", "stages.3.epochs=1")
    train_tiny(packed, tmp_path / "next", *FAST, *extra, code=3)
    assert "is not of the run in its folder (seed: 0 in the folder, 1 now in the file)" in capsys.readouterr().err
    (run / "log.jsonl").unlink()
    train_tiny(packed, tmp_path / "next", *FAST, *extra, code=3)
    assert "train without --start-from" in capsys.readouterr().err


@pytest.mark.fault(44)
def test_a_run_that_is_taken_over_keeps_its_epochs(packed, tmp_path, whole):
    assert find_start(whole, json.loads((whole / "config.json").read_text())).stages == 4
    folder = stopped(packed, tmp_path / "run", "--start-from", whole, "--set", "stages.3.epochs=1", steps=1)
    (folder / "log.jsonl").unlink()
    summary = train_tiny(packed, folder, *FAST, "--set", "stages.3.epochs=1")
    assert [stage["epochs"] for stage in summary["stages"]] == [1, 2, 1, 1]
    assert load_checkpoint(folder / "checkpoints")[0] == Position(4)
