"""Every schedule is a test case: all stages, two steps each, on a tiny world; in the slow tier at its own width."""

import json
import math
from dataclasses import fields, replace

import pytest

from fastres.evaluate.combining import METHODS
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import UsageError
from fastres.model.flop import stage_flop
from fastres.model.surgery import IMAGENET_WNIDS
from fastres.schedules import BEYOND, DEMO, PAPER, PLAIN, SCHEDULES, SYSTEMS, TORCH7, small_world
from fastres.schedules.loading import load_schedule, shared_stages
from fastres.schedules.quarter import quarter
from fastres.schedules.small import NETS
from fastres.schedules.types import KNOWN_HEAD
from fastres.schedules.writing import write_schedule
from fastres.stage.rehearsal import rehearse
from fastres.track import pictures
from fastres.track.log import read_log
from fastres.train import command as train_module
from fastres.train import dry_run, publishing
from fastres.train.dry_run import _probe
from tests.support.docs_commands import DOCS

EXPECTED = {f"{method} {what}" for method in METHODS for what in ("top1", "top5", "test top1")}
IMAGENET = IMAGENET_WNIDS.read_text().split()
EXPECTED |= {"first-epoch centre top1", "at least centre top1"}


def shortened(schedule, width: int):
    """One epoch a stage, which is two steps here; fresh weights instead of those that cannot be had everywhere."""
    stages = tuple(replace(stage, epochs=1) for stage in schedule.stages)
    if schedule.weights is not None and stages[0].surgery[:1] not in (("fc",), (KNOWN_HEAD,)):
        raise AssertionError("a pretrained net's first stage gives it a head")
    if schedule.knows_classes:  # tests/stage/test_known_head.py has nets whose own head it can keep
        stages = (replace(stages[0], surgery=("fc",)), *stages[1:])
    return replace(schedule, width=width, weights=None, batch_size=20, stages=stages)


def train(schedule, packed, folder) -> dict:
    path = write_schedule(folder / "schedule.py", schedule, "test")
    arguments = [
        "--schedule",
        str(path),
        "--data",
        str(packed),
        "--run-dir",
        str(folder / "run"),
        "--wandb",
        "off",
        "--precision",
        "fp32",
    ]
    assert load_schedule(str(path)) == schedule
    assert run_command(lambda: train_module.main(arguments)) == 0
    return json.loads((folder / "run" / "summary.json").read_text())


# an optimizer and a rate rule of each kind; the others, and 50 layers, are the slow tier's
QUICK = ("paper", "modern", "per-layer-lr")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SCHEDULES])
def test_every_schedule_trains_all_its_stages(name, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "draw", lambda *_: [])  # half the time of so short a run
    monkeypatch.setattr(pictures, "stem_filters", lambda *_: None)
    schedule = shortened(SCHEDULES[name], width=8)
    summary = train(schedule, packed, tmp_path)
    assert [(s["name"], s["epochs"]) for s in summary["stages"]] == [(s.name, 1) for s in schedule.stages]
    log = [r for r in read_log(tmp_path / "run" / "log.jsonl") if r["event"] == "epoch"]
    assert all(math.isfinite(r["train_loss"]) and math.isfinite(r["val_loss"]) for r in log)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*(s.name for s in (*SYSTEMS, *BEYOND)), "scratch-64"])
def test_every_schedule_steps_at_its_own_width(name, packed, monkeypatch):
    """The network, geometry and settings as they are; batches of 2 random images instead of 256. Stages that it shares
    with `paper`, or with an earlier system where the recipe is another, have their step there."""
    import torch

    from fastres.data.manifest import load_manifest

    monkeypatch.setattr(dry_run, "CPU_SECONDS", 0.0)  # a step each
    schedule = replace(SCHEDULES[name], batch_size=2)
    manifest = replace(load_manifest(packed), side=64)
    networks = rehearse(schedule, 4, 64, wnids=IMAGENET[:4])
    precision = Precision("fp32", torch.device("cpu"))
    others = (PAPER, *SYSTEMS, *BEYOND)
    earlier = others[: others.index(SCHEDULES[name])] if SCHEDULES[name] in others else ()
    shared = max((shared_stages(other, SCHEDULES[name]) for other in earlier), default=0)
    own = list(zip(schedule.stages, networks, strict=True))[shared:]
    rows = [_probe(schedule, stage, network, manifest, precision) for stage, network in own]
    assert all(row["img_per_s"] > 0 for row in rows)
    crops = {row["crop"] for row in rows}
    assert crops == {"test-size": {56, 64}, "scratch-64": {64}, "initialized-fc": set()}.get(name, crops & {224, 56})
    assert crops or name == "initialized-fc", "all its stages are paper's"


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_fits_tiny_imagenet(name):
    """Walked through on shapes: 200 classes, 64 pixels; layer4 ends in 7 x 7, whatever the stem."""
    schedule = SCHEDULES[name]
    if schedule in PLAIN:
        with pytest.raises(UsageError, match="nobody publishes a plain18, expected a resnet's name"):
            rehearse(schedule, 200, 64)
    elif schedule.weights is None or schedule.weights.startswith("IMAGENET1K"):
        assert all(found.classes == 200 for found in rehearse(schedule, 200, 64, wnids=IMAGENET[:200]))
    assert set(schedule.expected) <= EXPECTED and all(0 < value < 100 for value in schedule.expected.values())


def test_figures_are_the_papers():
    """Table 2, Table 1's own system, and section 5.2, copied here by hand."""
    table_2 = {
        "naive-fc": (23.65, 48.69),
        "feature-extractor": (24.31, 48.93),
        "feature-extractor-50": (24.14, 48.56),
        "initialized-fc": (8.48, 26.83),
        "paper": (8.14, 24.99),
    }
    for name, (top5, top1) in table_2.items():
        expected = SCHEDULES[name].expected
        assert (expected["12-crop top5"], expected["12-crop top1"]) == (top5, top1)
    table_1 = {"full": (8.97, 28.8, 34.4), "centre": (9.94, 28.9, 34.2), "10-crop": (9.10, 27.1, 32.2)}
    for method, row in table_1.items():
        expected = SCHEDULES["initialized-fc"].expected
        assert tuple(expected[f"{method} {what}"] for what in ("top5", "top1", "test top1")) == row
    assert SCHEDULES["conv1-naive"].expected["first-epoch centre top1"] == 38
    assert SCHEDULES["conv1-blank"].expected["at least centre top1"] == 50


def test_variants_change_one_thing_and_cost_no_more():
    """Stages shared with `paper`, and what differs in the first that is not; compute as img at 224 and at 56."""
    shared = {s.name: shared_stages(PAPER, s) for s in BEYOND}
    assert shared == {
        "torch7-raw": 2,
        "antialias": 2,
        "pi-resize": 2,
        "pullback": 2,
        "conv1-frozen": 2,
        "conv1-batch": 2,
        "per-layer-lr": 1,
        "layer-decay": 1,
        "surgical": 1,
        "l2-sp": 1,
        "gradual": 1,
        "test-size": 3,
        "known-head": 0,
        "impatient": 0,
        "one-cycle": 0,
        "modern": 0,
    }
    for schedule in BEYOND:
        for upscale in (4, 1):
            ours, papers = (sum(r.epochs for r in s.stages if r.upscale == upscale) for s in (schedule, PAPER))
            assert ours == papers or schedule.name == "modern"
        if len(schedule.stages) == len(PAPER.stages):
            row, papers_row = (s.stages[min(shared[schedule.name], 3)] for s in (schedule, PAPER))
            changed = [f.name for f in fields(row) if getattr(row, f.name) != getattr(papers_row, f.name)]
            assert len(changed) == (0 if schedule.name in ("one-cycle", "impatient") else 1)


def test_torch7s_reading_differs_where_the_paper_is_silent():
    """Each counterpart's rows beside the paper's: epochs, weights that learn, rates and sizes are the paper's."""
    for ours in TORCH7:
        papers = SCHEDULES[ours.name.removesuffix("-torch7")]
        assert ours.batch_size == 32 and ours.expected == papers.expected
        assert replace(ours, name=papers.name, batch_size=256, stages=papers.stages) == papers
        for row, theirs in zip(ours.stages, papers.stages, strict=True):
            assert replace(row, bn=theirs.bn, surgery=theirs.surgery) == theirs
            assert row.bn == ("batch" if row.name in ("fc", "conv1") else "frozen")
            assert row.surgery == {("stem:torch7",): ("stem:torch7-raw",)}.get(theirs.surgery, theirs.surgery)


def test_modern_computes_no_more_than_the_paper():
    """Operations over all epochs, at the paper's size and at the quarter's."""
    for counterpart, side in ((lambda s: s, 64), (lambda s: quarter(s, {"resnet18": "net"}), 16)):
        ours, papers = (
            sum(stage.epochs * cost for stage, cost in zip(s.stages, stage_flop(s.to_dict(), 100, side), strict=True))
            for s in map(counterpart, (SCHEDULES["modern"], PAPER))
        )
        assert 0.9 * papers < ours < papers


def test_the_page_names_every_schedule_and_its_figure():
    page = (DOCS / "your-schedule.md").read_text()
    lines = page.split("\n## Every schedule\n")[1].split("\n## ")[0].splitlines()
    for name, schedule in SCHEDULES.items():
        line = next((line for line in lines if line.startswith("| ") and f"`{name}`" in line.split("|")[1]), None)
        assert line, f"the table of schedules has no {name}"
        assert f"| {schedule.expected.get('12-crop top1', '')}" in line


def test_the_demo_is_the_small_worlds_paper():
    assert replace(small_world(PAPER), name="demo") == DEMO


@pytest.mark.parametrize("schedule", [s for s in (*SYSTEMS, *BEYOND) if not s.knows_classes], ids=lambda s: s.name)
def test_small_counterparts(schedule):
    """The same stages, shorter; what shares stages goes on sharing them."""
    small = small_world(schedule)
    assert small.name == f"{schedule.name}-small"
    for row, its in zip(schedule.stages, small.stages, strict=True):
        same = ("train", "upscale", "surgery", "bn", "lr_factors", "pull", "whole")
        assert all(getattr(row, name) == getattr(its, name) for name in same) and its.epochs <= row.epochs
    assert {row.epochs for row in small_world(schedule, 1e-6).stages} == {1}
    assert shared_stages(small, small_world(PAPER)) == shared_stages(schedule, PAPER)
    assert small.weights == (None if schedule.weights is None else NETS[schedule.arch][0])


def test_a_head_that_knows_the_classes_has_no_counterpart():
    with pytest.raises(UsageError, match="known-head: the small world's nets have no head for its classes"):
        small_world(SCHEDULES["known-head"])


def test_an_architecture_without_a_small_net_has_no_counterpart():
    with pytest.raises(UsageError, match="has no pretrained resnet34, expected one of resnet18, resnet50"):
        small_world(replace(PAPER, arch="resnet34"))
