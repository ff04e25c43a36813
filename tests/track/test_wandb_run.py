"""What W&B has of a real run: every record of its offline file, what a server is sent, and the workspace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastres.machine.command import run_command
from fastres.track import workspace
from fastres.track.error_table import every_combination
from fastres.track.log import read_log
from fastres.track.metrics import definitions
from fastres.track.mistakes import class_table, read_mistakes
from fastres.train import command as train_module
from tests.conftest import TINY, TINY_FILE
from tests.support.wandb_records import items, of_kind, records
from tests.support.wandb_server import Answer, history, serving

ROOT = Path(__file__).resolve().parents[2]
LOGGED = {
    "train/loss", "lr", "val/top1_err", "val/top5_err", "val/loss", "stage/index", "speed/img_per_s",
    "speed/data_wait_pct", "epoch", "images_seen",
}  # fmt: skip
ON_A_GPU = {"speed/gpu_mem_gb", "speed/mfu_pct"}
PICTURES = ("error_by_epoch", "stem_filters", "views", "confusion_matrix")  # none of the worst mistakes on photos
MEDIA = {*(f"pictures/{name}" for name in PICTURES), "final/crop_methods", "final/classes"}


@pytest.fixture(scope="module")
def finished(packed, tmp_path_factory):
    """A whole run of four stages, mirrored offline, with its model as an artifact."""
    folder = tmp_path_factory.mktemp("mirrored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("WANDB_"):
                patch.delenv(name)
        arguments = [
            "--schedule",
            TINY_FILE,
            "--data",
            packed,
            "--run-dir",
            folder,
            "--precision",
            "fp32",
            "--wandb",
            "offline",
            "--project",
            "mirror-test",
            "--wandb-artifact",
        ]
        assert run_command(lambda: train_module.main([str(word) for word in arguments])) == 0
    return folder


@pytest.fixture(scope="module")
def found(finished):
    (file,) = finished.glob("wandb/offline-run-*/*.wandb")
    return records(file)


def points(found) -> list[dict]:
    return [items(message.item) for message in of_kind(found, "history")]


@pytest.mark.slow
def test_every_metric_is_logged_with_its_axis(found):
    keys = {key.split(".")[0] for point in points(found) for key in point if not key.startswith("_")}
    assert keys == LOGGED | MEDIA, "nothing is missing, nothing is sent that nobody asked for"
    for point in points(found):
        if "val/top1_err" in point:
            assert "epoch" in point
        if {"train/loss", "lr", "speed/data_wait_pct"} & set(point):
            assert {"train/loss", "lr", "speed/data_wait_pct", "stage/index", "images_seen"} <= set(point)
    defined = {metric.name: metric for metric in of_kind(found, "metric") if metric.name}
    assert set(defined) == LOGGED | ON_A_GPU
    for name, axis, summary in definitions():
        if name in defined:
            assert defined[name].step_metric == (axis or ""), name
            chosen = {kind for kind in ("min", "max", "mean", "last") if getattr(defined[name].summary, kind)}
            assert chosen == set(summary.split(",")), name


@pytest.mark.slow
def test_its_figures_are_those_of_the_log(finished, found):
    epochs = [record for record in read_log(finished / "log.jsonl") if record["event"] == "epoch"]
    sent = [point for point in points(found) if "val/top1_err" in point]
    assert [(p["epoch"], p["val/top1_err"], p["stage/index"]) for p in sent] == [
        (record["epoch_total"], record["val_top1_err"], record["stage"]) for record in epochs
    ]
    ends = {p["images_seen"]: p for p in points(found) if "train/loss" in p}
    for record in epochs:
        point = ends[record["images_seen"]]
        assert point["speed/img_per_s"] == record["img_per_s"] and point["train/loss"] == record["train_loss"]
        assert point["speed/data_wait_pct"] == record["data_wait_pct"]
        assert record["data_wait_pct"] == pytest.approx(100 * record["wait_s"] / record["train_s"])
    assert epochs[-1]["images_seen"] == 40 * TINY.epochs


@pytest.mark.slow
def test_configuration_tags_pictures_table_and_model(finished, found):
    (run,) = of_kind(found, "run")
    config = items(run.config.update)
    assert config["schedule"] == json.loads((finished / "config.json").read_text())["schedule"]
    assert set(run.tags) == {"tiny", "resnet18", "resident", "fp32", "cpu"} and run.project == "mirror-test"
    summary = json.loads((finished / "summary.json").read_text())
    (folder,) = finished.glob("wandb/offline-run-*")
    paths = [entry.path for message in of_kind(found, "files") for entry in message.files]
    assert len(paths) == len(MEDIA) and all((folder / "files" / path).is_file() for path in paths)
    tables = [json.loads((folder / "files" / path).read_text()) for path in paths if path.endswith(".table.json")]
    by_columns = {tuple(table["columns"]): table["data"] for table in tables}
    (columns, rows), (names, classes) = (
        every_combination(summary["errors"], TINY.expected),
        class_table(read_mistakes(finished)),
    )
    assert by_columns == {tuple(columns): rows, tuple(names): classes} and (len(rows), len(classes)) == (20, 4)
    (model,) = (artifact for artifact in of_kind(found, "artifact") if artifact.type == "model")
    (entry,) = model.manifest.contents
    weights = finished / "final.safetensors"
    assert Path(entry.local_path) == weights and entry.size == weights.stat().st_size
    for artifact in of_kind(found, "artifact"):
        for entry in artifact.manifest.contents:
            assert Path(entry.local_path).is_relative_to(finished), "what a later sync needs lies in the run's folder"
    totals = {}
    for message in of_kind(found, "summary"):
        totals |= items(message.update)
    assert totals["final/12crop_top1_err"] == summary["errors"]["expsum"]["12-crop"]["top1"]
    assert totals["data_wait_pct"] == summary["data_wait_pct"] > 0


@pytest.mark.slow
def test_wandb_sync_sends_a_server_all_of_it(finished, tmp_path):
    (folder,) = finished.glob("wandb/offline-run-*")
    with serving(Answer) as server:
        env = client(server, tmp_path)
        subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(folder)], env=env, check=True, timeout=200, capture_output=True
        )
        sent = history(server)
        artifacts = {v["input"]["artifactTypeName"] for name, v in server.asked if name == "CreateArtifact"}
    assert {key for point in sent for key in point if not key.startswith("_")} == LOGGED | MEDIA
    epochs = [record for record in read_log(finished / "log.jsonl") if record["event"] == "epoch"]
    assert [p["val/top1_err"] for p in sent if "val/top1_err" in p] == [record["val_top1_err"] for record in epochs]
    assert artifacts == {"model", "run_table"}


def client(server, tmp_path) -> dict:
    """The environment of a process that knows this server only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return kept | {
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": "0" * 40,
        "NETRC": str(tmp_path / "netrc"),
        "WANDB_CONFIG_DIR": str(tmp_path),
    }


def test_workspace_without_login_is_a_file_of_known_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert workspace.main(["--project", "mine", "--entity", "we", "--out", str(tmp_path / "view.json")]) == 0
    assert "wandb login" in capsys.readouterr().out
    view = json.loads((tmp_path / "view.json").read_text())
    assert (view["project"], view["entity"]) == ("mine", "we")
    sections = {s["name"]: s["panels"] for s in view["spec"]["section"]["panelBankConfig"]["sections"]}
    assert set(sections) == {"Accuracy", "Throughput", "Pictures"}
    drawn = set()
    for name in ("Accuracy", "Throughput"):
        configs = [panel["config"] for panel in sections[name]]
        assert any("stage/index" in str(config) for config in configs), "stage borders"
        for config in configs:
            drawn |= set(config["metrics"])
            for metric in config["metrics"]:
                assert config["xAxis"] == {"stage/index": "images_seen"}.get(metric, axis_of(metric)), metric
    assert drawn == (LOGGED | ON_A_GPU) - {"epoch", "images_seen"}, "every metric has a panel"


def axis_of(metric: str) -> str | None:
    return next(axis for name, axis, _ in definitions() if name == metric)


@pytest.mark.slow
def test_workspace_is_saved_on_a_server(tmp_path):
    with serving(Answer) as server:
        done = subprocess.run(
            [sys.executable, "-m", "fastres", "workspace", "--project", "mine"],
            cwd=ROOT,
            env=client(server, tmp_path),
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr
    (sent,) = [variables for name, variables in server.asked if name == "UpsertView2"]
    assert done.stdout.startswith(f"http://127.0.0.1:{server.server_port}/e/mine?nw=")
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("e", "mine", workspace.VIEW)
    expected = workspace.as_json(workspace.workspace("mine", "e"))["spec"]
    assert without_ids(json.loads(sent["spec"])) == without_ids(expected)


def without_ids(value):
    """The specification without the ids that are drawn for each of its panels."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("__id__", "id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_an_artifact_that_nobody_can_take_is_refused(packed, tmp_path, capsys):
    arguments = ["--schedule", TINY_FILE, "--data", packed, "--run-dir", tmp_path, "--wandb", "off", "--wandb-artifact"]
    assert run_command(lambda: train_module.main([str(word) for word in arguments])) == 2
    assert "--wandb-artifact" in capsys.readouterr().err
