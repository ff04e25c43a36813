"""A run folder whose run never did a step is taken over by another configuration; one that did is not. The paper's
figures stand beside Tiny ImageNet alone."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastres.data.described import TINY_IMAGENET
from fastres.model.network import Architecture, build
from fastres.schedules import PAPER
from fastres.schedules.types import Schedule
from fastres.track.log import read_log
from fastres.track.run_view import RunView
from fastres.train.options import Options
from tests.conftest import TINY
from tests.support import tiny_runs
from tests.support.tiny_runs import stop_after, train_tiny


@pytest.mark.slow
def test_a_run_that_never_started_gives_its_folder_up(packed, tmp_path, monkeypatch, capsys):
    """As `train` without a network, then again with --weights."""
    weights = tmp_path / "w.pth"
    torch.save(build(Architecture("resnet18", 8, 9)).state_dict(), weights)
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastres.train.start.initial_network", lambda *_: (_ for _ in ()).throw(OSError(5, "no network")))
        train_tiny(packed, folder, code=4)
    (folder / "wandb").mkdir(exist_ok=True)
    (folder / "wandb" / "run_id").write_text("of the first\n")
    assert json.loads((folder / "config.json").read_text())["schedule"]["weights"] is None
    capsys.readouterr()
    summary = train_tiny(packed, folder, "--weights", weights, "--no-evaluation")
    said = capsys.readouterr().err
    assert "has not trained a step; this one takes its place" in said and summary["status"] == "done"
    assert json.loads((folder / "config.json").read_text())["schedule"]["weights"] == str(weights)
    assert not (folder / "wandb" / "run_id").exists(), "another run at W&B as well"
    assert [record["event"] for record in read_log(folder / "log.jsonl")].count("start") == 1


def test_a_run_that_trained_a_step_keeps_it(packed, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 1)
        train_tiny(packed, folder, code=75)
    for file in folder.glob("checkpoints/*"):
        file.unlink()
    before = (folder / "config.json").read_bytes(), (folder / "log.jsonl").read_bytes()
    train_tiny(packed, folder, "--set", "optimizer.lr=0.3", code=2)
    assert "optimizer.lr: 0.05 in the folder, 0.3 now" in capsys.readouterr().err
    assert before == ((folder / "config.json").read_bytes(), (folder / "log.jsonl").read_bytes())


def test_a_config_that_is_not_ours_is_not_taken_over(packed, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"mine": 1}')
    train_tiny(packed, folder, code=2)
    assert (folder / "config.json").read_text() == '{"mine": 1}'


@pytest.fixture
def with_figures(monkeypatch, tmp_path):
    """The tiny schedule, claiming the paper's figures."""
    file = tmp_path / "figures.py"
    file.write_text(
        "from dataclasses import replace\nfrom tests.conftest import TINY\n"
        "SCHEDULE = replace(TINY, expected={'12-crop top1': 24.99, 'centre top1': 27.1})\n"
    )
    monkeypatch.setattr(tiny_runs, "TINY_FILE", file)


@pytest.mark.slow
def test_the_papers_figures_stand_beside_no_other_data(packed, tmp_path, with_figures, capsys):
    folder = tmp_path / "run"
    summary = train_tiny(packed, folder)
    printed = capsys.readouterr().out
    assert summary["expected"] == {} and "paper top" not in printed and "12-crop" in printed
    assert json.loads((folder / "config.json").read_text())["schedule"]["expected"] == {}
    assert RunView.read(folder).expected == {}


@pytest.mark.slow
def test_a_run_of_before_resumes_though_its_config_has_figures(packed, tmp_path, with_figures, monkeypatch):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        train_tiny(packed, folder, code=75)
    config = json.loads((folder / "config.json").read_text())
    config["schedule"]["expected"] = {"12-crop top1": 24.99}
    (folder / "config.json").write_text(json.dumps(config))
    assert train_tiny(packed, folder, "--no-evaluation")["status"] == "done"
    assert json.loads((folder / "config.json").read_text())["schedule"]["expected"] == {}


def on(schedule: Schedule, **changes) -> dict:
    """What is expected of a run on data with Tiny ImageNet's facts, but for `changes`."""
    facts = {"side": 64, "num_classes": 200, "class_digest": TINY_IMAGENET, "train": 100_000, "val": 10_000, **changes}
    manifest = SimpleNamespace(**facts, count=lambda split: facts[split])
    return Options(schedule=schedule).on(manifest).schedule.expected


def test_tiny_imagenet_is_all_of_it():
    assert on(PAPER) == PAPER.expected != {}
    for change in ({"side": 32}, {"class_digest": "0" * 64}, {"train": 99_999}, {"val": 1000}):
        assert on(PAPER, **change) == {}
    assert on(replace(TINY, expected={})) == {}
