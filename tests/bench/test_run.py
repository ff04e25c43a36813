"""`bench run`: where the time went adds up; what has finished is never lost; rows of old records keep their figures."""

import csv
import json

import pytest

from fastres.bench import results, run
from fastres.machine.errors import MachineError
from fastres.schedules import PAPER
from tests.conftest import TINY, TINY_FILE


def arguments(packed, *extra):
    settings = [f"--set=stages.{stage}.epochs=1" for stage in range(4)]
    return ["--schedule", str(TINY_FILE), "--data", str(packed), "--device", "cpu", *settings, *map(str, extra)]


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def finished(packed, tmp_path_factory):
    """One seed trained in a process of its own, and its record."""
    folder = tmp_path_factory.mktemp("bench")
    assert run.main(arguments(packed, "--record", folder, "--json", folder / "run.json")) == 0
    return folder, json.loads((folder / "run.json").read_text())["rows"][0]


@pytest.mark.slow
def test_parts_of_the_wall_time_add_up(finished):
    _, summary = finished
    parts = [summary[name] for name in ("train_s", "val_s", "eval_s", "checkpoint_s")]
    assert min(parts) > 0 and sum(parts) < summary["wall_s"] < summary["cold_s"]
    assert 0 < summary["wait_s"] < summary["train_s"]
    for name in ("train_s", "wait_s"):
        assert sum(stage[name] for stage in summary["stages"]) == pytest.approx(summary[name])
    assert all(stage["img_per_s"] > 0 for stage in summary["stages"])


@pytest.mark.slow
def test_the_record_has_a_chart_of_every_stage_against_the_floor(finished):
    folder, summary = finished
    (chart,) = folder.glob("*/chart.png")
    assert chart.stat().st_size > 5_000
    kept = {path.name for path in chart.parent.glob("*.png")} - {"chart.png"}
    assert kept == {"error_by_epoch.png", "stem_filters.png", "confusion_matrix.png"}, "none that shows their images"
    on_cpu = {"machine": {"gpu": None}, "rows": [summary]}
    bars = run.as_bars(on_cpu, TINY, 16)
    assert [row["img_per_s"] for row in bars["rows"]] == [stage["img_per_s"] for stage in summary["stages"]]
    assert bars["rows"][2]["mode"] == "stage 3, conv1: 1 epochs, crop 14" and bars["floors"] == {}
    assert "none is known for a CPU" in bars["floor_note"]
    summaries = [{**summary, "precision": "bf16"}, {**summary, "seed": 1}]
    bars = run.as_bars({"machine": {"gpu": "NVIDIA H200"}, "rows": summaries}, PAPER, 64)
    assert list(bars["floors"].values()) == [202_722, 69_666, 109_007, 73_191]


@pytest.mark.slow
def test_a_seed_that_fails_costs_only_itself(packed, finished, tmp_path, monkeypatch, capsys):
    summary = {**finished[1], "seed": 1}
    monkeypatch.setattr(run, "_train", lambda args, seed, folder: summary if seed == 1 else fail(seed))

    def fail(seed):
        raise MachineError(f"the run of seed {seed} ended with exit code 5: see its message above")

    with pytest.raises(MachineError, match="seed 0 .*; the run of seed 2 .*what did finish is kept"):
        run.main(arguments(packed, "--seeds", 3, "--record", tmp_path))
    assert [row["seed"] for row in rows_of(tmp_path / "results.csv")] == ["1"]
    assert "waits for data" in capsys.readouterr().out


@pytest.mark.slow
def test_rows_from_before_a_column_was_added_keep_their_figures(finished, tmp_path):
    folder, summary = finished
    path, old = tmp_path / "results.csv", [c for c in results.COLUMNS if c != "pack_s"]
    path.write_text(",".join(old) + "\n" + ",".join(f"{i}" for i in range(len(old))) + "\n")
    (machine,) = folder.glob("*/run.json")
    results.add_rows(
        path, {"machine": json.loads(machine.read_text())["machine"], "rows": [{**summary, "pack_s": 2.04}]}
    )
    before, after = rows_of(path)
    assert [before[c] for c in old] == [str(i) for i in range(len(old))] and before["pack_s"] == ""
    assert after["pack_s"] == "2.0" and float(after["train_s"]) == pytest.approx(summary["train_s"], abs=0.06)


def test_the_device_asked_for_is_the_one_recorded(packed, monkeypatch):
    """cuda:1 used to be recorded under the first GPU's name."""
    asked = []
    monkeypatch.setattr(run, "choose_device", lambda name: asked.append(name) or "the second")
    monkeypatch.setattr(run.facts, "machine", lambda device: asked.append(device) or {})
    monkeypatch.setattr(run, "_train_all", lambda args, folders: ([], ["nothing ran"]))
    with pytest.raises(MachineError, match="nothing ran"):
        run.main(["--device", "cuda:1"])
    assert asked == ["cuda:1", "the second"]
