"""The dashboard's page for the phone and the dark, and how --watch waits for a run that has not begun."""

import re
import threading
import time
from dataclasses import replace

from fastres.machine.command import run_command
from fastres.track import page as frame
from fastres.track import show
from fastres.track.charts import image_charts, loss_chart
from fastres.track.run_view import read_runs
from fastres.track.svg import NAMES
from tests.track.test_show import make_run, page_of


def test_the_page_fits_a_phone_and_follows_light_and_dark(tmp_path):
    page = page_of(make_run(tmp_path / "one", expected={"centre top1": 27.1}), "--out", tmp_path / "page.html")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media (prefers-color-scheme: dark)" in page and "color-scheme: light dark" in page
    assert list(frame.LIGHT) == list(frame.DARK)
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        assert not re.search(r"#[0-9a-f]{6}\b|<style|<!--|<\?xml| width=|url\(http", svg.partition("<g")[0])
        assert not re.findall(r"(?:fill|stroke): *#", svg), "every colour is the page's"
        used = set(re.findall(r"var\((--\w+)\)", svg))
        assert "--run0" in used and used <= {f"--{name}" for name in frame.LIGHT} and "currentColor" in svg
        pointed, there = re.findall(r"#([\w-]+)[\")]", svg), re.findall(r' id="([^"]*)"', svg)
        assert set(pointed) == set(there)
    assert set(NAMES.values()) - {"currentColor"} <= {f"var(--{name})" for name in frame.LIGHT}


def test_losses_share_a_chart_and_a_constant_rate_is_a_line(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "one")])
    assert ">training<" in loss_chart([run]) and ">validation<" in loss_chart([run])
    old = replace(run, label="old", records=[{k: v for k, v in r.items() if k != "val_loss"} for r in run.records])
    assert ">training<" in loss_chart([old]) and ">validation<" not in loss_chart([old])
    assert ">one<" in loss_chart([run, old]) and ">old<" in loss_chart([run, old])
    assert loss_chart([replace(run, records=[])]) is None
    rate = image_charts([run])["Learning rate"]
    ticks = [float(text) for text in re.findall(r">(\d[\d.]*)</text>", rate)]
    assert {0.0, 0.01, 0.02} <= set(ticks), "from zero to twice its height"


def test_watch_waits_for_a_run_that_has_not_begun(tmp_path, capsys):
    folder = tmp_path / "later"

    def begin():
        time.sleep(0.3)
        assert not folder.exists(), "whoever waits leaves the folder to the run"
        make_run(folder)

    run = threading.Thread(target=begin)
    run.start()
    assert run_command(lambda: show.main([str(folder), "--watch", "--every", "1"])) == 0
    run.join()
    said = capsys.readouterr()
    assert said.out == f"{folder / 'dashboard.html'}\n" and (folder / "dashboard.html").is_file()
    assert said.err.count("no run has begun here yet; waiting for it") == 1 and "error" not in said.err


def test_ctrl_c_ends_the_waiting(tmp_path, capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    assert run_command(lambda: show.main([str(tmp_path / "never"), "--watch"])) == 0
    said = capsys.readouterr()
    assert said.out == "" and "no page was written" in said.err and not (tmp_path / "never").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("a folder of something else")
    assert run_command(lambda: show.main([str(tmp_path / "other"), "--watch"])) == 3
    assert "no config.json" in capsys.readouterr().err
