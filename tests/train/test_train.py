"""The loop as a whole: that it learns, repeats and resumes to the bit, and what a run leaves and refuses."""

import csv
import json
import os
import shutil
import signal
import time

import pytest
import torch

from fastres.data.described import describe
from fastres.data.manifest import load_manifest
from fastres.evaluate import __main__ as evaluate_module
from fastres.machine.errors import Preempted
from fastres.machine.facts import commit
from fastres.model.reading import read_weights
from fastres.stage.step import EagerStep
from fastres.study.findings.runs import read_runs
from fastres.track import show as show_module
from fastres.track.log import read_log
from fastres.track.mistakes import read_mistakes
from fastres.train import command as train_module
from fastres.train import loop
from fastres.train.summary import as_text
from tests.conftest import TINY_FILE
from tests.support.tiny_runs import stop_after, train_tiny


@pytest.fixture(scope="module")
def finished(packed, tmp_path_factory):
    """One whole run in float32 that several tests look at."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_tiny(packed, folder, "--precision", "fp32", draws=True)


@pytest.mark.slow
@pytest.mark.fault(22)
def test_stopped_during_the_final_evaluation(packed, tmp_path, monkeypatch):
    """The signal is seen between two batches, and the same command evaluates without training again."""
    original = loop.evaluate

    def stopping(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", stopping)
        assert train_tiny(packed, tmp_path / "run", code=Preempted.exit_code)["status"] == "preempted"
    monkeypatch.setattr(loop, "train_epoch", None)  # would fail if it were called
    assert train_tiny(packed, tmp_path / "run")["status"] == "done"


@pytest.mark.slow
def test_a_run_may_end_without_the_twelve_crops(packed, tmp_path, capsys):
    """As a search's trials do: the same weights, no final errors, no pictures; the table says so, and evaluate adds
    what is missing. The dashboard and the study show such a run without them."""
    folder = tmp_path / "run"
    summary = train_tiny(packed, folder, "--no-evaluation")
    assert (summary["status"], summary["errors"], summary["pictures"]) == ("done", {}, [])
    assert summary["stages"][-1]["val_top1_err"] >= 0 and not (folder / "pictures" / "views.png").exists()
    said = capsys.readouterr().out
    assert "not evaluated with twelve crops" in said and "12-crop" not in said
    assert evaluate_module.main([str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"]["expsum"]["12-crop"]["top1"] >= 0
    assert show_module.main([str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert "Final errors" not in (tmp_path / "page.html").read_text()
    assert read_runs([folder])[0].errors() is None


@pytest.mark.slow
def test_times_survive_a_stop_inside_an_epoch(packed, tmp_path, monkeypatch):
    """The seconds of an epoch's steps before and after the stop are added up."""
    original, done = EagerStep.__call__, 0

    def slow(self, *arguments, **named):
        nonlocal done
        original(self, *arguments, **named)
        done += 1
        time.sleep(0.1)
        if done == 3:  # the last step of the first epoch
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EagerStep, "__call__", slow)
    train_tiny(packed, tmp_path / "run", code=Preempted.exit_code)
    train_tiny(packed, tmp_path / "run")
    first = next(r for r in read_log(tmp_path / "run" / "log.jsonl") if r["event"] == "epoch")
    assert first["train_s"] >= 0.3 and first["img_per_s"] <= 40 / 0.3


@pytest.mark.slow
def test_same_seed_same_run_and_other_seed_another(packed, tmp_path, finished):
    folder, _ = finished
    train_tiny(packed, tmp_path / "again", "--precision", "fp32")
    train_tiny(packed, tmp_path / "other", "--precision", "fp32", "--seed", "1")
    weights = [read_weights(f / "final.safetensors") for f in (folder, tmp_path / "again", tmp_path / "other")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["fc.weight"], weights[2]["fc.weight"])


@pytest.mark.slow
def test_it_learns(packed, tmp_path):
    """Striped blobs of four classes, where chance errs 75 %: the staged loop gets most of them right.

    In float32: at width 4 a bfloat16 gradient errs by a third, and then a rounding anywhere decides how it ends (seeds
    0 to 2 erred 20, 50 and 0 %, and 50, 50 and 50 % after a change of rounding; in float32 0, 30 and 0 %).
    """
    settings = ("batch_size=8", "stages.3.epochs=20", "lr_policy.patience=9")
    summary = train_tiny(packed, tmp_path / "run", "--precision", "fp32", *(f"--set={setting}" for setting in settings))
    assert summary["errors"]["expsum"]["12-crop"]["top1"] <= 40
    losses = [r["train_loss"] for r in read_log(tmp_path / "run" / "log.jsonl") if r["event"] == "epoch"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_log_and_summary_hold_everything(finished):
    folder, summary = finished
    epochs = [r for r in read_log(folder / "log.jsonl") if r["event"] == "epoch"]
    assert [r["epoch_total"] for r in epochs] == [1, 2, 3, 4, 5, 6]
    assert [r["stage_name"] for r in epochs] == ["fc", "all", "all", "conv1", "all-14", "all-14"]
    assert all(r["img_per_s"] > 0 and r["train_s"] > 0 for r in epochs)
    assert summary["status"] == "done" and summary["count"] == 20
    assert summary["commits"] == [found for found in (commit(),) if found]
    assert set(summary["errors"]) == {"expsum", "softmax", "logit", "max", "vote"}
    assert all(set(table) == {"full", "centre", "10-crop", "12-crop"} for table in summary["errors"].values())
    names = [os.path.basename(path) for path in summary["pictures"]]
    assert names[:3] == ["error_by_epoch.png", "stem_filters.png", "views.png"]
    assert names[3:] == ["confusion_matrix.png", "worst_mistakes.png"]
    assert all(os.path.getsize(path) > 5_000 for path in summary["pictures"])
    # the last epoch's centre-crop validation and the final table's centre column are the same measurement
    assert epochs[-1]["val_top1_err"] == summary["errors"]["expsum"]["centre"]["top1"]


@pytest.mark.slow
def test_the_mistakes_are_those_that_the_table_counts(packed, finished):
    folder, summary = finished
    mistakes, manifest = read_mistakes(folder), load_manifest(packed)
    assert [row["class"] for row in mistakes["classes"]] == manifest.wnids
    wrong = sum(row["wrong"] for row in mistakes["classes"])
    assert 100 * wrong / 20 == pytest.approx(summary["errors"]["expsum"]["12-crop"]["top1"])
    rows = list(csv.DictReader((folder / "mistakes/errors.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [f"val/images/val_{i}.JPEG" for i in range(20)]
    assert sum(row["truth"] != row["answer 1"] for row in rows) == wrong


@pytest.mark.slow
def test_a_run_ends_also_where_its_mistakes_cannot_be_written(packed, tmp_path, capsys):
    """The files' names are lost, which training never needed."""
    data, few = tmp_path / "data", [f"--set=stages.{stage}.epochs=1" for stage in range(4)]
    shutil.copytree(packed, data)
    (data / "val.files.txt").write_text("")
    assert train_tiny(data, tmp_path / "run", *few)["status"] == "done"
    assert "what the network gets wrong is not written: " in capsys.readouterr().err
    assert not (tmp_path / "run" / "mistakes").exists()


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_errors_by_class_come_first_on_ones_own_data_alone(finished, tmp_path, content):
    folder = tmp_path / "run"
    shutil.copytree(finished[0] / "mistakes", folder / "mistakes")
    if content is not None:
        (folder / "mistakes/mistakes.json").write_text(content)
    whole, old = finished[1], {**finished[1], "own_data": False}
    opening = as_text(whole, folder).removesuffix(as_text(old, folder))
    assert "true class  taken for" in opening if content is None else "mistakes.json: " in opening
    assert "true class" not in as_text(old, folder)


@pytest.mark.fault(19)
def test_finished_run_shows_its_table(packed, finished, capsys):
    folder, summary = finished
    before = (folder / "final.safetensors").stat().st_mtime_ns
    assert train_tiny(packed, folder, "--precision", "fp32") == summary
    out, dataset = capsys.readouterr().out, describe(load_manifest(packed))
    assert "12-crop" in out and f"on 20 validation images of {dataset}; scores" in out
    assert out.startswith("class (largest errors)") and "paper" not in out, "the data are somebody's own"
    assert "4 classes, 16 pixels" in dataset and summary["dataset"] == dataset
    assert (folder / "final.safetensors").stat().st_mtime_ns == before


@pytest.mark.fault(19)
def test_other_configuration_is_refused(packed, finished, capsys):
    folder, _ = finished
    train_tiny(packed, folder, "--precision", "fp32", "--set", "optimizer.lr=0.5", code=2)
    assert "optimizer.lr: 0.05 in the folder, 0.5 now" in capsys.readouterr().err


@pytest.mark.fault(22)
@pytest.mark.parametrize("steps", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9, 10, 13))])
def test_stopped_at_a_step_and_resumed_ends_in_the_same_bits(packed, tmp_path, finished, monkeypatch, steps):
    """Inside every kind of stage and at their borders (3 steps an epoch; 18 in all)."""
    reference, summary = finished
    with monkeypatch.context() as patch:
        done = stop_after(patch, steps)
        stopped = train_tiny(packed, tmp_path / "run", "--precision", "fp32", code=Preempted.exit_code)
    assert stopped["status"] == "preempted" and len(done) == steps
    again = train_tiny(packed, tmp_path / "run", "--precision", "fp32")
    assert again["errors"] == summary["errors"]
    weights = [read_weights(f / "final.safetensors") for f in (reference, tmp_path / "run")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    logs = [
        [(r["event"], r["at"]) for r in read_log(f / "log.jsonl") if r["event"] in ("epoch", "stage")]
        for f in (reference, tmp_path / "run")
    ]
    assert [r for r in logs[0] if r[0] == "epoch"] == [r for r in logs[1] if r[0] == "epoch"]


def diverging(packed, folder, setting, capsys):
    """What a run says that ends at once with a loss that is not finite."""
    assert train_tiny(packed, folder, "--set", setting, code=5)["status"] == "diverged"
    assert (folder / "diverged.json").exists()
    return capsys.readouterr().err.rstrip()


@pytest.mark.fault(27)
def test_divergence_is_exit_5(packed, tmp_path, capsys):
    said = diverging(packed, tmp_path / "run", "optimizer.lr=1e30", capsys)
    assert "expected a finite number" in said and said.endswith("in another --run-dir: --set optimizer.lr=2.5e+29")


def test_divergence_of_a_stage_with_its_own_rate_names_that(packed, tmp_path, capsys):
    said = diverging(packed, tmp_path / "run", "stages.3.lr=1e30", capsys)
    assert said.endswith("in another --run-dir: --set stages.3.lr=2.5e+29")


def test_dry_run_trains_nothing(packed, tmp_path, capsys):
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--run-dir", str(tmp_path / "run")]
    assert train_module.main([*arguments, "--dry-run", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["steps"] for row in result["stages"]] == [3, 6, 3, 6]
    assert all(result[f"expected_{part}_s"] > 0 for part in ("train", "val", "eval")) and result["load_per_core"] >= 0
    for row in result["stages"]:
        assert row["expected_s"] == pytest.approx(row["epochs"] * 40 / row["img_per_s"])
    assert result["expected_train_s"] == pytest.approx(sum(row["expected_s"] for row in result["stages"]))
    assert result["expected_val_s"] == pytest.approx(sum(row["validation_s"] for row in result["stages"]))
    by_stage = [row["validation_s"] / row["epochs"] for row in result["stages"]]
    assert result["expected_eval_s"] == pytest.approx(12 * by_stage[-1])
    assert result["schedule"]["stages"][2]["surgery"] == ["stem:torch7"]
    assert not (tmp_path / "run").exists()
