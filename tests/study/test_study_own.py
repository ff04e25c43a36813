"""A study of one's own photos: errors by class first, systems by their schedules' names, nothing of the paper."""

import json
import re

import pytest

from fastres.machine.command import run_command
from fastres.study import __main__ as study_module
from fastres.study.findings.own import BESIDE, NO_CLASSES, classes_table, in_short, make_tables
from fastres.study.findings.record import page_table
from fastres.study.findings.runs import by_system, read_runs
from fastres.track.error_table import standard_error
from tests.support.study_runs import made_run, result_of

PAPERS = re.compile(
    r"tiny.?imagenet|small world|the paper|paper,|K520|Table \d|[Ff]igure \d|[Ss]ection \d|agree|24\.99|26\.8|48\.[679]"
)
WRONG = {"cat": 1, "dog": 4, "yak": 2}  # of 10 images each


def run_of(tmp_path, name, error, *, seed=0, wrong=None, **more):
    """A finished run on photos that says what it gets wrong by class; with `wrong` None it does not."""
    photos = {"photos": True, "classes": 3, "side": 32, "count": 30}
    folder = made_run(tmp_path / f"{name}{seed}", name, {"12-crop top1": error}, seed=seed, **photos, **more)
    if wrong is not None:
        rows = [
            {"class": name, "name": name, "images": 10, "wrong": k, "top1_err": 10.0 * k, "standard_error": 1.0}
            for name, k in wrong.items()
        ]
        (folder / "mistakes").mkdir()
        (folder / "mistakes/mistakes.json").write_text(json.dumps({"classes": rows}))
    return folder


def figures(tmp_path, folders, *more, code=0):
    command = ["--figures", *map(str, folders), "--out", str(tmp_path / "out"), "--device", "cpu", *map(str, more)]
    assert run_command(lambda: study_module.main(command)) == code


def without_pictures(text: str) -> str:
    return re.sub(r'src="data:[^"]*"|<style>.*?</style>', "", text, flags=re.S).partition("<h2>How this was made</h2>")[
        0
    ]


def test_the_report_opens_with_the_errors_by_class_and_says_nothing_of_the_paper(tmp_path, capsys):
    """`demo` is the schedule of these runs: elsewhere its name would be the paper's."""
    folders = [
        run_of(tmp_path, "demo", 30.0, wrong=WRONG),
        run_of(tmp_path, "naive-fc-small", 20.0, wrong={**WRONG, "dog": 1}),
        run_of(tmp_path, "mine", 40.0, wrong=WRONG, curve=(90.0, 45.0)),
    ]
    figures(tmp_path, folders, "--record", tmp_path / "runs")
    page, said = (tmp_path / "out/report.html").read_text(), capsys.readouterr().out
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[0] == "Error by class" and headings[1:3] == ["In short", "Systems"]
    assert page.index("photos, 3 classes, 32 pixels; networks of width 16 and 64.") < page.index("Error by class")
    table = page_table(tmp_path / "runs")
    (record,) = (tmp_path / "runs").glob("*/table.md")
    report = said.partition("\npicture ")[0]
    for text in (without_pictures(page), report, table, record.read_text().partition("\n")[2]):
        assert not PAPERS.search(text), PAPERS.search(text)
    assert (
        report.index("Error by class") < report.index("Systems, the best first") < report.index("lowest error: naive")
    )
    result = result_of(tmp_path / "out")
    assert result.pop("disagrees") == [] and not PAPERS.search(json.dumps({**result, "command": ""}))
    assert [row[0] for row in result["tables"]["systems"]["rows"]] == ["naive-fc-small", "demo", "mine"]
    assert result["verdicts"] == [] and "paper" not in result["tables"]["systems"]["header"]
    assert set(result["pictures"]) == {"error by epoch"} and "| naive-fc-small | 1 | 20.0 | 7.3 | 10.0 |" in table


def test_systems_have_a_table_of_their_own_with_what_they_cost(tmp_path):
    folders = [run_of(tmp_path, "mine", error, seed=seed) for seed, error in enumerate((20.0, 24.0))]
    folders += [run_of(tmp_path, "other", 30.0, status="diverged"), run_of(tmp_path, "third", 30.0)]
    for folder, seconds in zip(folders, (7.0, 9.0)):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "wall_s": seconds}))
    systems = by_system(read_runs(folders))
    table = make_tables(systems, None, [])["systems"]
    assert table.header == (
        *("system", "seeds", "val top-1", "s.e.", "val top-5", "centre top-1"),
        *("epochs", "img/s", "train s", "wall s", ""),
    )
    mine, third, other = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert (mine["val top-1"].mean, mine["val top-1"].std) == (22.0, pytest.approx(8**0.5))
    assert mine["s.e."] == pytest.approx((standard_error(22.0, 30) ** 2 + 4) ** 0.5)
    images = systems["mine"][0].images
    assert images and mine["img/s"] == f"{2 * images / 4:,.0f}", "two epochs in four seconds"
    assert (mine["train s"].mean, mine["wall s"].mean, mine[""]) == (4.0, 8.0, "")
    assert third["wall s"] is None and third["seeds"] == 1
    assert other["val top-1"] is other["img/s"] is other["train s"] is None and other[""] == "1 diverged"


def test_classes_are_sorted_by_the_best_systems_errors_over_its_seeds(tmp_path):
    folders = [run_of(tmp_path, "mine", 20.0, seed=seed, wrong={**WRONG, "cat": 6 * seed}) for seed in (0, 1)]
    folders += [run_of(tmp_path, "other", 30.0, wrong=WRONG)]
    table = classes_table(by_system(read_runs(folders)))
    assert table.header == ("class", "images", "mine", "s.e.", "other")
    assert [row[0] for row in table.rows] == ["dog", "cat", "yak"]
    dog, cat, _ = table.rows
    assert (dog[2].mean, dog[2].std, dog[4].mean) == (40.0, 0.0, 40.0)
    assert cat[2].mean == 30.0 and cat[2].std == pytest.approx(60 / 2**0.5) and cat[4].mean == 10.0
    assert dog[3] == pytest.approx(standard_error(40.0, 10))
    assert cat[3] == pytest.approx((standard_error(30.0, 10) ** 2 + 30.0**2) ** 0.5)


def test_many_classes_are_folded_and_many_systems_left_out(tmp_path):
    many = {f"kind {k}": k % 10 for k in range(30)}
    folders = [run_of(tmp_path, f"system {k}", 20.0 + k, wrong=many) for k in range(BESIDE + 1)]
    systems = by_system(read_runs(folders))
    table = make_tables(systems, None, [])["classes"]
    assert len(table.rows) == 30 and len(table.header) == 3 + BESIDE and f"the {BESIDE} best of 5" in table.note
    assert table.text().count("kind") == 10 and "the first 10 of 30" in table.text()
    assert table.html().count(">kind 3<") == 1 and table.html().count("<details>") == 1
    assert in_short(systems)[1].startswith("lowest error: system 0, 20.00 %")


@pytest.mark.parametrize("damage", [None, "{", "{}", '{"classes": [{"name": 1}]}'])
def test_a_run_without_errors_by_class_is_said_and_costs_only_them(tmp_path, capsys, damage):
    folder = run_of(tmp_path, "mine", 20.0, wrong=None if damage is None else WRONG)
    if damage is not None:
        (folder / "mistakes/mistakes.json").write_text(damage)
    figures(tmp_path, [folder])
    said = capsys.readouterr().out
    assert f"{NO_CLASSES}{folder / 'mistakes/mistakes.json'}: " in said and "Error by class" not in said
    assert "classes" not in result_of(tmp_path / "out")["tables"]


def test_a_study_whose_runs_all_diverged_has_a_report(tmp_path, capsys):
    figures(tmp_path, [run_of(tmp_path, "mine", 20.0, status="diverged")])
    assert f"{NO_CLASSES}no run is finished" in capsys.readouterr().out
