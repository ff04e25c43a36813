"""What a run that goes on does about what the try before left: damaged checkpoints, a summary, the end's record."""

import json
from pathlib import Path

import pytest

from fastres.machine.errors import MachineError
from fastres.track.log import read_log
from fastres.track.run_dir import RunDir
from fastres.train import run as run_module
from fastres.train.checkpoint import Position, checkpoints_in, load_checkpoint, save_checkpoint, set_aside_after
from tests.support.tiny_runs import stop_after, train_tiny
from tests.train.test_checkpoint import STATE, damage, names


def test_what_is_saved_after_damage_is_kept(tmp_path):
    """The newest two are damaged and the run goes on from the best: its next checkpoints must not be pruned."""
    for epoch, error in ((1, 10.0), (8, 30.0), (9, 30.0)):
        save_checkpoint(tmp_path, Position(0, epoch), STATE, error)
    for saved in checkpoints_in(tmp_path)[1:]:
        damage(saved.path, "flipped")
    position, _ = load_checkpoint(tmp_path)
    set_aside_after(tmp_path, position)
    for epoch in (2, 3):
        save_checkpoint(tmp_path, Position(0, epoch), STATE, 40.0)
        assert load_checkpoint(tmp_path)[0] == Position(0, epoch)
    assert names(tmp_path) == [(1, 10.0), (2, 40.0), (3, 40.0)] and len(list(tmp_path.glob("*.damaged"))) == 2


def summary_while_it_runs(monkeypatch, folder: Path) -> list[bool]:
    """Whether there is one when the first stage begins."""
    begin, seen = run_module.Run.begin_stage, []

    def looking(self, index):
        if not seen:
            seen.append((folder / "summary.json").exists())
        return begin(self, index)

    monkeypatch.setattr(run_module.Run, "begin_stage", looking)
    return seen


@pytest.mark.slow
def test_the_summary_of_the_try_before_is_gone_while_a_run_goes_on(packed, tmp_path, monkeypatch):
    """Else a run that is then killed would pass for one that was preempted."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert train_tiny(packed, folder, code=75)["status"] == "preempted"
    before = summary_while_it_runs(monkeypatch, folder)
    write = RunDir.write_summary

    def full_once(self, summary):  # between the end's record and the summary
        monkeypatch.setattr(RunDir, "write_summary", write)
        raise MachineError("full")

    monkeypatch.setattr(RunDir, "write_summary", full_once)
    assert train_tiny(packed, folder, code=4)["status"] == "failed" and before == [False]
    assert train_tiny(packed, folder)["status"] == "done"
    assert [record["event"] for record in read_log(folder / "log.jsonl")].count("final") == 1
    assert json.loads((folder / "config.json").read_text()).get("deterministic") is None
    train_tiny(packed, folder, "--deterministic", code=2)
