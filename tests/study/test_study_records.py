"""What a study says besides its figures: which data, which nets; its record and the table of study.md."""

import json
import re
from dataclasses import replace
from pathlib import Path

from fastres.study.findings.claims import judge
from fastres.study.findings.notes import kind_of, label_of, notes_on_nets
from fastres.study.findings.record import page_table, record
from fastres.study.findings.result import Result
from fastres.study.findings.runs import by_system, read_runs
from fastres.study.findings.tables import table_1, table_2
from preprocess.small_world.classes import wnids
from tests.support.study_runs import made_run

ROOT = Path(__file__).parents[2]


def test_record_and_table_of_the_page(tmp_path):
    """The record has no path of this machine; the table is made from it alone."""
    systems = by_system(
        read_runs(
            [
                made_run(
                    tmp_path / "r" / f"{name}{seed}",
                    f"{name}-small",
                    {"12-crop top1": e + seed},
                    seed=seed,
                    ids=wnids(20),
                    classes=20,
                    side=32,
                    count=1000,
                )
                for name, e in (("paper", 30.0), ("naive-fc", 40.0))
                for seed in (0, 1)
            ]
        )
    )
    assert list(systems) == ["naive-fc", "paper"] and all(run.small for run in systems["paper"])
    assert page_table(tmp_path / "runs") == "No study has been recorded yet."
    tables = {"table 1": table_1(systems), "table 2": table_2(systems)}
    label = label_of("small-world", systems["paper"])
    result = Result(label, kind_of(systems["paper"]), systems, tables, judge(systems), {}, ["a note"])
    folder = record(tmp_path / "runs", result, "python -m fastres.study paper --small-world")
    assert "study-small-world" in folder.name
    assert str(tmp_path) not in (folder / "study.json").read_text() + (folder / "table.md").read_text()
    epochs = json.loads((folder / "study.json").read_text())["runs"][0]["epochs"]
    assert {"lr", "train_loss", "val_loss", "val_top1_err"} <= epochs[0].keys(), "whether it learns by heart"
    table = page_table(tmp_path / "runs")
    assert table.startswith("**Small world**, 20 classes of 32 pixels, networks of width ")
    assert folder.name in table and table.endswith("\n- A note.")
    assert re.search(r"\| `naive-fc` \| 2 \| 40.5 ± 0.7 \| 1.[67] \| 48.69 \|", table)
    assert re.search(r"\| `paper` \| 2 \| 30.5 ± 0.7 \| 1.5 \| 24.99 \|", table)
    assert "trained by the code of abc1234;" in table
    newer = record(tmp_path / "runs", replace(result, notes=["another"]), "python -m fastres.study paper --small-world")
    table = page_table(tmp_path / "runs")
    assert f"`runs/{newer.name}/`. What the paper says" in table and "\n- Another." in table and "A note" not in table
    assert f"Older records:\n\n- `runs/{folder.name}/`: Small world, 20 classes of 32 pixels" in table
    assert table.endswith("; 2 systems, 2 seeds.")


def test_data_are_told_apart_and_labelled(tmp_path):
    made = {
        "small-world": {"ids": wnids(20), "classes": 20, "side": 32},
        "large-world": {"ids": wnids(200)},
        "paper": {},
        "other": {"classes": 20, "side": 32},
    }
    for kind, data in made.items():
        runs = read_runs([made_run(tmp_path / kind, "paper", {}, **data)])
        assert kind_of(runs) == kind
        label = label_of(kind, runs)
        assert ("neither confirm nor refute" in label) == kind.endswith("world")
        assert ("20 classes of 32 pixels" in label) == (kind in ("small-world", "other"))
        assert ("aper" in label or "Tiny ImageNet" in label) == (kind != "other")


def test_it_is_said_where_seeds_start_from_several_nets(tmp_path):
    def started(name, *nets):
        runs = read_runs([made_run(tmp_path / f"{name}{seed}", name, {}, seed=seed) for seed in range(len(nets))])
        return [replace(run, schedule={**run.schedule, "weights": net}) for run, net in zip(runs, nets, strict=True)]

    systems = {
        "paper": started("paper", "x/a.pth", "b.pth", "x/a.pth"),
        "naive-fc": started("naive-fc", "b", "b"),
        "from-scratch": started("from-scratch", None, None),
    }
    (note,) = notes_on_nets(systems)
    assert note.startswith("the pretrained net of paper is not the same")
    assert "(seeds 0, 2: a.pth; seed 1: b.pth)" in note


def test_the_pages_table_is_the_record():
    page = (ROOT / "fastres/docs/study.md").read_text()
    shown = page.partition("<!-- study -->\n")[2].partition("\n<!-- end of study -->")[0]
    assert shown == page_table(ROOT / "runs")
