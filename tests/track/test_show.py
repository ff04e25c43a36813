"""The local dashboard: what its page holds of finished, live, killed and damaged runs."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastres.machine.command import run_command
from fastres.track import show
from fastres.track.log import JsonLines
from fastres.track.run_dir import RunDir, live_process
from tests.track.test_show_mistakes import made

ROOT = Path(__file__).resolve().parents[2]
STAGES = [{"name": "fc<1>", "epochs": 2}, {"name": "all", "epochs": 3}]
METHODS = {"centre": {"top1": 41.25, "top5": 9.5}, "12-crop": {"top1": 38.125, "top5": 8.0}}


CHARTS = ["Validation error", "Loss", "Training speed", "Waiting for data", "Learning rate"]


def make_run(path: Path, *, epochs: int = 5, done: bool = True, lr: float = 0.01, expected=None) -> Path:
    """A run's folder as train leaves it, without training: 100 images an epoch, a point in the middle of each."""
    config = {
        "schedule": {"name": "made", "stages": STAGES, "optimizer": {"lr": lr}, "expected": expected or {}},
        "seed": 3,
    }
    with RunDir.open(path, config) as run:
        write_log(run.log, epochs)
        for name in ("stem_filters", "views"):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(run.pictures / f"{name}.png")
        if done:
            facts = {"status": "done", "count": 1000, "errors": {"expsum": METHODS}}
            run.write_summary({**facts, "expected": expected} if expected else facts)
    return path


def write_log(log: JsonLines, epochs: int) -> None:
    log.write("start", device="a machine")
    for total in range(1, epochs + 1):
        stage = 0 if total <= 2 else 1
        if total in (1, 3):
            log.write("stage", stage=stage, name=STAGES[stage]["name"], epochs=STAGES[stage]["epochs"])
        log.write("step", stage=stage, images_seen=100 * total - 50, lr=0.01, train_loss=2.0, data_wait_pct=7.5)
        log.write(
            "epoch",
            stage=stage,
            stage_name=STAGES[stage]["name"],
            epoch=total - 2 * stage,
            epoch_total=total,
            lr=0.01,
            train_loss=1.5,
            val_top1_err=60.0 - total,
            val_top5_err=float("nan"),
            val_loss=1.75,
            train_s=2.0,
            wait_s=0.5,
            images_seen=100 * total,
            img_per_s=1000.0 + total,
            data_wait_pct=25.0,
        )


def page_of(*arguments) -> str:
    out = next(Path(word) for word in reversed(arguments) if str(word).endswith(".html"))
    assert run_command(lambda: show.main([str(word) for word in arguments])) == 0
    return out.read_text()


def texts(page: str) -> str:
    """The page without its tags and pictures."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))


def test_a_finished_run_is_one_self_contained_page(tmp_path, capsys):
    page = page_of(make_run(tmp_path / "one", expected={"centre top1": 27.1}), "--out", tmp_path / "page.html")
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page) and "<script" not in page and "@import" not in page
    drawn = re.findall(r'<figcaption>([^<]*)</figcaption><svg [^>]* role="img" aria-label="([^"]*)">', page)
    assert [title for title, _ in drawn] == [label for _, label in drawn] == CHARTS
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,[A-Za-z0-9+/=]+"', page)
    assert pictures == ["one: views", "one: stem filters"], "filters come last"
    shown = texts(page)
    for text in (
        "done",
        "stage 2/2 all, 3 of 3 epochs",
        "55.00",
        "38.12",
        "41.25",
        "27.10",
        "25.00",
        "1004",
        "fc&lt;1&gt;",
        "schedule.optimizer.lr",
    ):
        assert text in shown, text
    assert "fc<1>" not in page, "names are escaped"
    assert "http-equiv" not in page


@pytest.mark.parametrize("own", [True, False])
def test_the_page_of_ones_own_data_opens_with_the_errors_by_class(tmp_path, own):
    """Of other data they follow the curves, as those of a run from before it said whose its data are."""
    run = make_run(tmp_path / "one")
    (run / "mistakes").mkdir()
    (run / "mistakes/mistakes.json").write_text(json.dumps(made()))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, **({"own_data": True} if own else {})}))
    page = page_of(run, "--out", tmp_path / "page.html")
    headings = re.findall("<h[23]>(.*?)</h[23]>", page)
    if own:
        assert headings[:3] == ["What one, schedule made, gets wrong", "By class", "Who is taken for whom"]
        assert not re.search("paper(?!:)", texts(page))
    else:
        assert headings[0] == "Runs" and "What one gets wrong" in headings[2:]


def test_curves_have_every_epoch_and_the_stages_borders(tmp_path):
    from fastres.track.charts import error_chart, image_charts
    from fastres.track.run_view import read_runs

    (run,) = read_runs([make_run(tmp_path / "one")])
    svg = error_chart([run])
    assert "fc&lt;1&gt;" in svg and ">all<" in svg and ">top-1<" in svg
    assert [(b.name, b.epoch, b.images) for b in run.borders()] == [("fc<1>", 2, 200), ("all", 5, 500)]
    assert svg.count("stroke-dasharray: 3.7") == 2, "one dashed line for each border"
    assert run.series(run.epochs, "epoch_total", "val_top1_err") == ([1, 2, 3, 4, 5], [59.0, 58.0, 57.0, 56.0, 55.0])
    assert list(image_charts([run])) == CHARTS[2:]


@pytest.mark.slow
def test_several_runs_are_compared_setting_by_setting(tmp_path):
    runs = [make_run(tmp_path / "a", lr=0.01), make_run(tmp_path / "b", lr=0.02, epochs=3, done=False)]
    shown = texts(page_of(*runs, "--out", tmp_path / "page.html"))
    differ = shown.partition("Where the configurations differ")[2].partition("Pictures")[0]
    assert "Strong: top-1. Thin: top-5." in shown and shown.count(">top-1<") == 0
    assert differ.split() == ["setting", "a", "b", "schedule.optimizer.lr", "0.01", "0.02"]
    assert "killed" in shown and "stage 2/2 all, 1 of 3 epochs" in shown
    same = texts(page_of(runs[0], make_run(tmp_path / "c"), "--out", tmp_path / "same.html"))
    assert "The same in all of these runs." in same


LIVE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.track.test_show import STAGES, write_log
from fastres.track.run_dir import RunDir
with RunDir.open(Path(sys.argv[1]), {"schedule": {"name": "live", "stages": STAGES}, "seed": 0}) as run:
    write_log(run.log, 2)
    print("writing", flush=True)
    sys.stdin.readline()
    run.write_summary({"status": "preempted", "exit_code": 75, "error": "stopped by a signal"})
"""


def test_stages_of_one_name_have_a_row_each(tmp_path):
    from fastres.track.overview import _stage_rows
    from fastres.track.run_view import read_runs

    (run,) = read_runs([make_run(tmp_path / "one")])
    for record, speed in zip(run.epochs, (100, 200, 10, 20, 90), strict=True):
        record |= {"stage_name": "all", "img_per_s": speed}
    rows = _stage_rows(run)
    assert [(row[0], row[1], row[3], row[5]) for row in rows] == [("all", 2, 150, 58.0), ("all", 3, 20, 55.0)]


@pytest.mark.slow
def test_watch_follows_a_live_run_to_its_end(tmp_path):
    folder, out = tmp_path / "live", tmp_path / "page.html"
    with subprocess.Popen(
        [sys.executable, "-c", LIVE, str(folder), str(ROOT)],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout.readline() == "writing\n"
        assert live_process(folder) == run.pid
        watching = subprocess.Popen(
            [sys.executable, "-m", "fastres", "show", str(folder), "--watch", "--every", "1", "--out", str(out)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout.readline() == f"{out}\n"
        page = out.read_text()
        assert '<meta http-equiv="refresh" content="1">' in page and "live: still training" in page
        first = out.stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while out.stat().st_mtime_ns == first and time.monotonic() < deadline:
            time.sleep(0.1)
        assert out.stat().st_mtime_ns != first, "written anew while the run is live"
        run.stdin.write("end\n")
        run.stdin.close()
        assert watching.wait(60) == 0, "it ends with the run"
        watching.stdout.close()
    page = out.read_text()
    assert "http-equiv" not in page and "stopped by a signal" in page and "preempted" in texts(page)
    assert live_process(folder) is None


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_just_begun(tmp_path, epochs):
    shown = texts(page_of(make_run(tmp_path / "new", epochs=epochs, done=False), "--out", tmp_path / "page.html"))
    assert ("before its first stage" in shown) == (epochs == 0)
    assert ("Nothing has been measured yet" in shown) == (epochs == 0)


def test_what_is_no_run_is_a_sentence(tmp_path, capsys):
    assert run_command(lambda: show.main([str(tmp_path)])) == 3
    assert "no config.json" in capsys.readouterr().err and not list(tmp_path.iterdir())
    folder = make_run(tmp_path / "torn")
    (folder / "summary.json").write_text(json.dumps({"status": "done"})[:-3])
    assert run_command(lambda: show.main([str(folder)])) == 3
    assert run_command(lambda: show.main([str(folder), "--every", "0"])) == 2
