"""The study at a quarter of its size: from a whole data set to a report, by one command."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fastres.data.manifest import load_manifest
from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.model.metadata import read_metadata
from fastres.model.network import Architecture, build
from fastres.schedules import SCHEDULES
from fastres.schedules import quarter as quarter_module
from fastres.schedules.writing import write_schedule
from fastres.study import __main__ as study_module
from fastres.study.findings.notes import UNSEEN
from fastres.study.findings.record import page_table
from fastres.study.training import launch as launch_module
from tests.support import trees
from tests.support.study_runs import InProcess, result_of

CLASSES = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A whole data set of 64 pixels in Tiny ImageNet's layout."""
    folder = tmp_path_factory.mktemp("whole") / "tiny-imagenet-200"
    trees.write_tree(folder, classes=CLASSES, side=64, train=16, val=4, test=2)
    return folder


@pytest.fixture
def brief(monkeypatch):
    """Nets of 8 channels, an epoch of pretraining; runs in this process, the study's pictures left out."""
    from fastres.study.findings import report

    monkeypatch.setattr(quarter_module, "WIDTH", 8)
    short = replace(
        quarter_module.PRETRAIN, width=8, batch_size=16, stages=(replace(quarter_module.PRETRAIN.stages[0], epochs=1),)
    )
    monkeypatch.setitem(quarter_module.PRETRAINING, "resnet18", short)
    launched = InProcess()
    monkeypatch.setattr(launch_module, "Child", launched)
    for name in ("draw_curves", "draw_filters", "draw_answers"):
        monkeypatch.setattr(report, name, lambda *_: None)
    return launched


def study(source, out, *extra) -> int:
    once = [f"--set=stages.0.epochs={1}", "--set=batch_size=16"]
    arguments = ["paper", "--quarter", "--source", source, "--out", out, "--device", "cpu", "--schedules", "naive-fc"]
    return run_command(lambda: study_module.main([*map(str, arguments), *once, *map(str, extra)]))


def test_every_counterpart_is_the_papers_own_epochs_and_rates():
    nets = {"resnet18": "net18", "resnet50": "net50", "plain18": "net of plain blocks"}
    with pytest.raises(UsageError, match="know other classes"):
        quarter_module.quarter(SCHEDULES["known-head"], nets)
    for schedule in (s for s in SCHEDULES.values() if not s.knows_classes):
        small = quarter_module.quarter(schedule, nets)
        same = [(s.epochs, s.train, s.upscale, s.surgery, s.bn, s.lr) for s in schedule.stages]
        assert [(s.epochs, s.train, s.upscale, s.surgery, s.bn, s.lr) for s in small.stages] == same
        assert small.batch_size == max(1, schedule.batch_size // 2) and small.optimizer == schedule.optimizer
        assert small.weights == (nets[schedule.arch] if schedule.weights else None) and not small.expected
    paper = quarter_module.quarter(SCHEDULES["paper"], nets)
    assert (paper.name, paper.width, paper.batch_size) == ("paper-quarter", 32, 128)
    assert [stage.name for stage in paper.stages] == ["fc", "all", "conv1", "all-14"]


@pytest.mark.parametrize(("scale", "epochs"), [(0.4, [2, 4, 2, 6]), (0.001, [1, 1, 1, 1]), (2, [10, 20, 8, 26])])
def test_a_scale_multiplies_the_epochs_of_every_stage(scale, epochs):
    paper = quarter_module.quarter(SCHEDULES["paper"], {"resnet18": "net18"}, scale)
    assert [stage.epochs for stage in paper.stages] == epochs
    pretraining = quarter_module.pretraining("resnet18", scale)
    assert pretraining.epochs == max(1, 20 * scale)
    assert pretraining.lr_policy.warmup_epochs == (0.5 if scale == 0.001 else 1.0), "the rate also falls"


@pytest.mark.slow
def test_one_command_packs_pretrains_trains_and_reports(source, tmp_path, brief, capsys):
    out = tmp_path / "out"
    assert study(source, out, "--record", tmp_path / "runs") == 0
    halves = {name: load_manifest(out / name) for name in ("source", "task")}
    assert (halves["source"].side, halves["task"].side) == (64, 16)
    ids = {name: [c.wnid for c in manifest.classes] for name, manifest in halves.items()}
    assert not set(ids["source"]) & set(ids["task"]) and len(ids["source"]) == len(ids["task"]) == CLASSES // 2
    assert brief.names() == ["resnet18", "naive-fc-quarter-s0"]
    result = result_of(out)
    # this tree is not Tiny ImageNet, whose part the study would name
    assert result["kind"] == "other" and result["tables"]["systems"]["rows"][0][0] == "naive-fc-quarter"
    pretrained = "the pretrained resnet18 (`quarter-pretrain`, epochs: 1) errs on"
    assert any(note.startswith(pretrained) for note in result["notes"])
    assert "not all systems have the paper's epochs: naive-fc 1 of 9" in result["notes"]
    metadata = read_metadata(out / "runs" / "naive-fc-quarter-s0" / "final.safetensors")
    assert metadata["data"] == "tiny-imagenet-200, 3 of its 6 classes, 16 pixels"
    assert (out / "report.html").is_file()
    (record,) = (tmp_path / "runs").iterdir()
    assert not list(record.glob("answers*"))
    calls = len(brief.calls)
    assert study(source, out) == 0 and len(brief.calls) == calls, "the same command again trains nothing"
    capsys.readouterr()
    assert study(source, out, "--scale", 3) == 2 and len(brief.calls) == calls
    assert "holds a net pretrained for 1 epochs, expected the 3 of this --scale" in capsys.readouterr().err
    assert study(source, out, "--scale", 3, "--dry-run") == 2
    assert study(source, out, "--scale", 3, "--net-scale", 1, "--dry-run") == 0
    assert len(brief.calls) == calls
    (out / "nets" / "resnet18" / "config.json").write_text("{}")
    assert study(source, out) == 3 and "holds what no run writes" in capsys.readouterr().err


@pytest.mark.slow
def test_the_label_of_a_part_of_tiny_imagenet(source, tmp_path, brief, monkeypatch):
    from fastres.data import described

    whole = load_manifest_of(source, tmp_path)
    monkeypatch.setattr(described, "TINY_IMAGENET", whole.class_digest)
    out = tmp_path / "out"
    assert study(source, out, "--record", tmp_path / "runs") == 0
    result = result_of(out)
    assert result["kind"] == "part"
    assert result["label"].startswith("Tiny ImageNet, 3 of its 6 classes, 16 pixels; networks of width 8.")
    assert result["label"].endswith(UNSEEN)
    net = out / "nets" / "resnet18" / "final.safetensors"
    given = ("--weights", f"resnet18={shutil.copy(net, tmp_path / 'net.safetensors')}")
    assert study(source, tmp_path / "given", *given) == 0
    assert not result_of(tmp_path / "given")["label"].endswith(UNSEEN), "nobody knows what a given net has seen"
    assert "**Tiny ImageNet, 3 of its 6 classes, 16 pixels" in page_table(tmp_path / "runs")


def load_manifest_of(source, tmp_path):
    from preprocess import pack

    assert pack.main(["--source", str(source), "--out", str(tmp_path / "whole"), "--engines", "resident"]) == 0
    return load_manifest(tmp_path / "whole")


@pytest.mark.slow
def test_a_dry_run_says_what_pretraining_and_systems_cost(source, tmp_path, brief, capsys):
    assert study(source, tmp_path / "out", "--dry-run", "--json") == 0
    cost = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(cost["pretraining"]) == {"quarter-pretrain"} and cost["pretraining"]["quarter-pretrain"] > 0
    assert cost["seconds"] > cost["pretraining"]["quarter-pretrain"] and brief.calls == []


@pytest.mark.slow
def test_what_will_not_fit_is_said_before_anything_is_pretrained(source, tmp_path, brief, capsys):
    assert study(source, tmp_path / "out", "--set=width=16") == 2
    assert "has width 16, expected the 8 of the net that is pretrained" in capsys.readouterr().err
    assert study(source, tmp_path / "out", "--set=stages.0.train=conv9.*") == 2
    other = write_schedule(tmp_path / "r34.py", replace(SCHEDULES["naive-fc"], arch="resnet34", name="r34"), "a test")
    assert study(source, tmp_path / "out", "--schedules", other) == 2
    assert "pretrains no resnet34, expected one of resnet18, resnet50, plain18" in capsys.readouterr().err
    assert brief.calls == []


@pytest.mark.slow
def test_a_net_that_is_given_is_not_pretrained(source, tmp_path, brief, capsys):
    torch.manual_seed(0)
    state = build(Architecture("resnet18", 8, 5)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "net.safetensors")
    assert study(source, tmp_path / "out", "--weights", f"resnet18={tmp_path / 'net.safetensors'}") == 0
    assert brief.names() == ["naive-fc-quarter-s0"]


def test_what_cannot_go_together_is_refused(source, tmp_path, capsys):
    shutil.copytree(source / "val", tmp_path / "val")
    for extra in (("--small-world",), ("--data", tmp_path), ("--net-scale", 0), ("--net-scale", 1, "--figures", "x")):
        assert study(source, tmp_path / "out", *extra) == 2
    assert "--quarter" in capsys.readouterr().err
