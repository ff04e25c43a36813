"""The study end to end on three tiny systems: what it trains, what it says, what it does when stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from PIL import Image

from fastres.errors import run_command
from fastres.study import __main__ as study_module
from fastres.study import launch as launch_module
from tests.study_runs import INITIALIZED, NAIVE, PAPER, InProcess, files, result_of, study


@pytest.fixture(scope="module")
def studied(packed, tmp_path_factory):
    """One study of three systems and two seeds that several tests look at, and its launcher."""
    folder, launch = tmp_path_factory.mktemp("study"), InProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch_module, "Child", launch)
        study(packed, folder, "--seeds", 2)
    return folder / "out", launch


def summaries(out, system):
    return [json.loads((out / "runs" / f"{system}-s{seed}" / "summary.json").read_text()) for seed in (0, 1)]


def test_shared_stages_are_trained_once(studied):
    out, launch = studied
    assert launch.names() == [f"{name}-s{seed}" for seed in (0, 1) for name in ("naive-fc", "initialized-fc", "paper")]
    starts = [call[call.index("--start-from") + 1] if "--start-from" in call else None for call in launch.calls]
    parents = [str(out / "runs" / f"initialized-fc-s{seed}") for seed in (0, 1)]
    assert starts == [None, None, parents[0], None, None, parents[1]]
    own = {(run["system"], run["taken_over_stages"]) for run in result_of(out)["runs"]}
    assert own == {("paper", 2), ("initialized-fc", 0), ("naive-fc", 0)}
    paper, initialized = summaries(out, "paper")[0], summaries(out, "initialized-fc")[0]
    assert paper["stages"][:2] == initialized["stages"], "the same stages, not trained again"


def test_every_cell_of_the_tables_is_the_runs_or_the_papers(studied):
    out, _ = studied
    result = result_of(out)
    ours = {name: summaries(out, name) for name in ("naive-fc", "initialized-fc", "paper")}

    def spread(name, method, k):
        values = [summary["errors"]["expsum"][method][k] for summary in ours[name]]
        mean = sum(values) / 2
        return {"mean": pytest.approx(mean), "std": pytest.approx(abs(values[0] - values[1]) / 2**0.5), "n": 2}

    rows = {row[0]: row for row in result["tables"]["table 1"]["rows"]}
    papers = {"full": (8.97, 28.8, 34.4), "centre": (9.94, 28.9, 34.2), "10-crop": (9.10, 27.1, 32.2),
              "12-crop": (8.48, 26.8, 32.0)}  # fmt: skip
    assert list(rows) == list(papers)
    for method, (top5, top1, test) in papers.items():
        assert rows[method][1] == spread("initialized-fc", method, "top5") and rows[method][2] == top5
        assert rows[method][3] == spread("initialized-fc", method, "top1") and rows[method][5:] == [top1, test]
    rows = {row[0]: row for row in result["tables"]["table 2"]["rows"]}
    assert list(rows) == ["naive-fc", "initialized-fc", "paper"]
    for name, top5, top1, epochs in (("naive-fc", 23.65, 48.69, 2), ("initialized-fc", 8.48, 26.83, 2),
                                     ("paper", 8.14, 24.99, 4)):  # fmt: skip
        row = rows[name]
        assert row[1] == 2 and row[2] == spread(name, "12-crop", "top5") and row[3] == top5
        assert row[4] == spread(name, "12-crop", "top1") and row[6] == top1 and row[10] == epochs
        assert row[8] == spread(name, "centre", "top1")
        assert row[12]["mean"] == pytest.approx(sum(summary["train_s"] for summary in ours[name]) / 2)
    for name, how, ten, twelve in result["tables"]["combinations"]["rows"]:
        for cell, method in ((ten, "10-crop"), (twelve, "12-crop")):
            assert cell["mean"] == pytest.approx(sum(s["errors"][how][method]["top1"] for s in ours[name]) / 2)
    speeds = result["tables"]["stages"]["rows"]
    assert [(row[0], row[1]) for row in speeds] == [
        ("naive-fc", "all"), *(("initialized-fc", s.name) for s in PAPER.stages[:2]),
        *(("paper", s.name) for s in PAPER.stages[2:])]  # fmt: skip


def test_standard_error_is_that_of_the_images_and_the_seeds(studied):
    row = next(row for row in result_of(studied[0])["tables"]["table 2"]["rows"] if row[0] == "paper")
    p = row[4]["mean"] / 100
    assert row[5] == pytest.approx(((1e4 * p * (1 - p) / 20) + row[4]["std"] ** 2 / 2) ** 0.5)


def test_page_is_whole_and_needs_no_network(studied):
    out, _ = studied
    text = (out / "report.html").read_text()
    pictures = result_of(out)["pictures"]
    assert {"figure 2", "figure 5", "figure 6", "figure 7"} <= set(pictures)
    assert text.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text) and "http" not in text
    assert "Neither Tiny ImageNet nor the small world" in text
    for heading in ("Table 1", "Table 2", "Figure 2", "Figure 5", "Figure 6", "Figure 7", "Section 5.3", "Cost"):
        assert f"<h2>{heading}" in text
    for name in pictures.values():
        with Image.open(out / name) as image:
            assert image.format == "PNG" and min(image.size) > 300


def test_the_same_command_again_trains_nothing(studied, packed, launch, tmp_path, capsys):
    shutil.copytree(studied[0], tmp_path / "out")
    study(packed, tmp_path, "--seeds", 2, "--json")
    assert launch.calls == []
    assert json.loads(capsys.readouterr().out)["tables"] == result_of(studied[0])["tables"]


def test_it_goes_on_where_it_was_stopped(packed, launch, tmp_path, capsys):
    """Stopped during the second run: the first is kept, and nothing is trained twice."""
    launch.answer = lambda arguments: 75 if "initialized-fc" in arguments[arguments.index("--run-dir") + 1] else None
    study(packed, tmp_path, "--jobs", 1, code=75)
    assert launch.names() == ["naive-fc-s0", "initialized-fc-s0"]
    assert "during initialized-fc, seed 0; the same command goes on there" in capsys.readouterr().err
    launch.answer = lambda arguments: None
    study(packed, tmp_path)
    assert launch.names()[2:] == ["initialized-fc-s0", "paper-s0"]


def test_a_run_that_diverges_is_a_row(packed, launch, tmp_path, capsys):
    """A rate of 1e30 at once gives no finite loss; the other systems are there, and its status is said."""
    wild = replace(NAIVE, optimizer=replace(NAIVE.optimizer, lr=1e30))
    study(packed, tmp_path, schedules=(wild, INITIALIZED))
    row = next(row for row in result_of(tmp_path / "out")["tables"]["table 2"]["rows"] if row[0] == "naive-fc")
    assert row[2] is None and row[4] is None and row[-1] == "1 diverged"
    out = capsys.readouterr().out
    assert "1 diverged" in out and "naive-fc, seed 0: the training loss is" in out
    before = len(launch.calls)
    study(packed, tmp_path, schedules=(wild, INITIALIZED))
    assert len(launch.calls) == before, "it would diverge again"


def test_a_run_that_fails_otherwise_is_the_exit_code_but_not_the_end(packed, launch, tmp_path, capsys):
    launch.answer = lambda arguments: 4 if "naive" in arguments[arguments.index("--run-dir") + 1] else None
    study(packed, tmp_path, schedules=(NAIVE, INITIALIZED), code=4)
    assert [row[0] for row in result_of(tmp_path / "out")["tables"]["table 2"]["rows"]] == ["initialized-fc"]
    assert "naive-fc, seed 0: exit code 4" in capsys.readouterr().out


def test_another_configuration_in_the_folder_is_refused(studied, packed, launch, tmp_path, capsys):
    shutil.copytree(studied[0], tmp_path / "out")
    study(packed, tmp_path, "--set", "optimizer.lr=0.01", code=2)
    assert "schedule.optimizer.lr: 0.005 in the folder, 0.01 now" in capsys.readouterr().err and launch.calls == []


def test_figures_are_redrawn_from_run_folders(studied, tmp_path):
    """No training: the folders are enough, wherever they are."""
    shutil.copytree(studied[0] / "runs", tmp_path / "elsewhere")
    runs = sorted((tmp_path / "elsewhere").glob("*"))  # as README has it: nothing else lies there
    assert run_command(lambda: study_module.main(["--figures", *map(str, runs), "--out", str(tmp_path / "out")])) == 0
    again, before = result_of(tmp_path / "out"), result_of(studied[0])
    assert again["tables"] == before["tables"] and again["verdicts"] == before["verdicts"]
    for name in before["pictures"].values():
        assert (tmp_path / "out" / name).read_bytes() == (studied[0] / name).read_bytes()


def test_figures_without_the_data_are_all_but_figure_7(studied, launch, tmp_path):
    """Redrawn on another machine, say: the packed folder is not there. One that is asked for by name must be."""
    shutil.copytree(studied[0] / "runs", tmp_path / "runs")
    for file in tmp_path.glob("runs/*/summary.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "data": str(tmp_path / "gone")}))
    command = ["--figures", *map(str, sorted((tmp_path / "runs").glob("*-s?"))), "--out", str(tmp_path / "out")]
    assert run_command(lambda: study_module.main(command)) == 0
    again, before = result_of(tmp_path / "out"), result_of(studied[0])
    assert again["tables"] == {key: table for key, table in before["tables"].items() if key != "figure 7"}
    (note,) = [note for note in again["notes"] if "figure 7 is not drawn" in note]
    assert str(tmp_path / "gone") in note
    assert run_command(lambda: study_module.main([*command, "--data", str(tmp_path / "gone")])) == 3


def test_set_weights_is_for_all_seeds(studied, packed, launch, tmp_path):
    nets = [str(studied[0] / "runs" / f"naive-fc-s{seed}" / "final.safetensors") for seed in (0, 1)]
    study(packed, tmp_path, "--weights", f"resnet18={nets[0]}", "--set", f"weights={nets[1]}",
          schedules=(replace(NAIVE, weights=nets[0]),))  # fmt: skip
    config = json.loads((tmp_path / "out" / "runs" / "naive-fc-s0" / "config.json").read_text())
    assert config["schedule"]["weights"] == nets[1]


def test_a_net_that_does_not_fit_is_said_before_anything_is_trained(studied, packed, launch, tmp_path, capsys):
    """Also the second seed's."""
    net = str(studied[0] / "runs" / "naive-fc-s0" / "final.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    study(packed, tmp_path, "--weights", f"resnet18={net}", "--weights", f"resnet18={tmp_path / 'bad.pth'}",
          "--seeds", 2, schedules=(replace(NAIVE, weights=net),), code=3)  # fmt: skip
    assert "bad.pth" in capsys.readouterr().err and launch.calls == []


def test_several_nets_are_dealt_to_the_seeds(studied, packed, launch, tmp_path):
    """Three seeds, two nets: each run starts from its seed's net, and all are seeds of one system."""
    nets = [str(studied[0] / "runs" / f"naive-fc-s{seed}" / "final.safetensors") for seed in (0, 1)]
    given = [f"resnet18={net}" for net in nets]
    study(packed, tmp_path, "--weights", given[0], "--weights", given[1], "--seeds", 3,
          schedules=(replace(NAIVE, weights=nets[0]),))  # fmt: skip
    configs = [json.loads((tmp_path / "out" / "runs" / f"naive-fc-s{k}" / "config.json").read_text()) for k in range(3)]
    assert [config["schedule"]["weights"] for config in configs] == [nets[0], nets[1], nets[0]]
    assert result_of(tmp_path / "out")["tables"]["table 2"]["rows"][0][1] == 3


def kill_after_three_epochs(command, log, number) -> subprocess.Popen:
    """Start the study, and send it a signal when its run has logged three epochs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"epoch"') >= 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(number)
    return first


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_of_its_own_is_stopped_and_taken_up_again(packed, tmp_path, number):
    """The real launcher. A stop is handed on; where the study itself is killed, its run stops with a checkpoint."""
    long = replace(NAIVE, stages=(replace(NAIVE.stages[0], epochs=30),))
    command = [sys.executable, "-m", "fastres.study", "--schedules", files(tmp_path / "given", long), "--data", packed,
               "--out", tmp_path / "out", "--device", "cpu"]  # fmt: skip
    run = tmp_path / "out" / "runs" / "naive-fc-s0"
    first = kill_after_three_epochs(command, run / "log.jsonl", number)
    _, said = first.communicate(timeout=120)
    assert first.returncode == (75 if number == signal.SIGTERM else -9)
    assert number == signal.SIGKILL or "goes on" in said
    deadline = time.monotonic() + 120
    while not (run / "summary.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert json.loads((run / "summary.json").read_text())["status"] == "preempted"
    time.sleep(2.0)  # it has said so; now it leaves
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    epochs = json.loads((tmp_path / "out" / "study.json").read_text())["runs"][0]["epochs"]
    assert [record["epoch_total"] for record in epochs] == list(range(1, 31))
    assert "resuming" in (tmp_path / "out" / "output" / "naive-fc-s0.txt").read_text()
