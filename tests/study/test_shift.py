"""A study's table of corrupted photos: what it says of each run, and that it judges each network once."""

import json

import pytest

from fastres.evaluate import __main__ as evaluate
from fastres.evaluate.shifted import CORRUPTIONS, Shifted
from fastres.machine.errors import DataError, UsageError
from fastres.study import __main__ as study
from fastres.study.findings import shift
from tests.support.tiny_runs import train_tiny


@pytest.fixture(scope="module")
def runs(packed, tmp_path_factory):
    """Two seeds of one schedule, and another schedule."""
    folder = tmp_path_factory.mktemp("shift")
    words = {"a": ("--seed", "0"), "b": ("--seed", "1"), "c": ("--set", "stages.1.epochs=1")}
    for name, given in words.items():
        train_tiny(packed, folder / name, "--precision", "fp32", *given)
    config = json.loads((folder / "c" / "config.json").read_text())
    config["schedule"]["name"] = "other"
    (folder / "c" / "config.json").write_text(json.dumps(config))
    return [folder / name for name in "abc"]


def table_of(runs, out, capsys) -> dict:
    capsys.readouterr()
    assert study.main(["--figures", *map(str, runs), "--out", str(out), "--shifted", "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["tables"]["shifted"]


def test_the_table_holds_the_means_of_what_evaluate_says(runs, packed, tmp_path, capsys):
    table = table_of(runs, tmp_path / "out", capsys)
    rows = {row[0]: dict(zip(table["header"], row, strict=True)) for row in table["rows"]}
    found = []
    for run in runs:
        capsys.readouterr()
        assert evaluate.main([str(run), "--data", str(packed), "--device", "cpu", "--json", "--shifted"]) == 0
        found.append(Shifted.of(json.loads(capsys.readouterr().out)["shifted"]))
    a, b, other = found
    (name,) = set(rows) - {"other"}
    assert rows[name]["seeds"] == 2 and rows["other"]["seeds"] == 1
    for kind in CORRUPTIONS:
        assert rows[name][kind]["mean"] == pytest.approx((a.of_kind(kind) + b.of_kind(kind)) / 2)
    assert rows[name]["clean"]["mean"] == pytest.approx((a.clean + b.clean) / 2)
    assert rows["other"]["mean of 15"]["mean"] == pytest.approx(other.mean)
    assert rows["other"]["lost"] == pytest.approx(other.mean - other.clean)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Corrupted photos" in page and "mean of 15" in page


def test_each_network_is_judged_once_and_another_one_anew(runs, tmp_path, capsys, monkeypatch):
    first = table_of(runs, tmp_path / "out", capsys)
    judged = []

    def judge(*given, source, **named):
        judged.append(source.parent.name)
        return Shifted(0.0, dict.fromkeys((name for kind in CORRUPTIONS.values() for name in kind), 50.0))

    monkeypatch.setattr(shift, "judge_shifted", judge)
    assert table_of(runs, tmp_path / "out", capsys) == first and judged == []
    kept = runs[1] / shift.KEPT
    good = json.loads(kept.read_text())
    bad = [{**good, "weights": "another"}, {**good, "precision": "bf16"}, {**good, "corruptions": 0}, [], 3]
    bad += [{**good, "errors": {}}, {**good, "clean": "low"}, {**good, "errors": {**good["errors"], "fog": 101}}]
    for content in (*map(json.dumps, bad), "not JSON"):
        kept.write_text(content)
        judged.clear()
        assert table_of(runs, tmp_path / "out", capsys) != first and judged == ["b"]
    kept.unlink()


def test_a_run_that_cannot_be_judged_is_left_out_and_data_that_are_gone_are_a_note(runs, tmp_path, capsys, monkeypatch):
    judged = shift.judge_shifted

    def judge(*given, source, **named):
        if source.parent.name == "c":
            raise DataError(f"weights {source}: their scores are not finite")
        return judged(*given, source=source, **named)

    (runs[2] / shift.KEPT).unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(shift, "judge_shifted", judge)
        table = table_of(runs, tmp_path / "out", capsys)
    assert [row[1] for row in table["rows"]] == [2]
    summary = json.loads((runs[0] / "summary.json").read_text())
    monkeypatch.setattr(shift, "opened", lambda *_: (_ for _ in ()).throw(DataError(f"{summary['data']}: is gone")))
    capsys.readouterr()
    words = ["--figures", *map(str, runs), "--out", str(tmp_path / "out"), "--shifted", "--device", "cpu", "--json"]
    assert study.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert "shifted" not in result["tables"]
    assert any("no network is judged on corrupted photos" in note for note in result["notes"])


def test_what_trains_or_shows_nothing_refuses_it():
    for words in (["paper", "--dry-run", "--shifted"], ["--check", "x", "--shifted"]):
        with pytest.raises(UsageError, match="--shifted: is for the report"):
            study.main(words)
