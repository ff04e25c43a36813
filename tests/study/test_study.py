"""The study end to end on three tiny systems: what it trains, what it says, what it does when stopped."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from fastres.machine.command import run_command
from fastres.study import __main__ as study_module
from fastres.study.findings import own
from fastres.study.training import launch as launch_module
from tests.support.study_runs import INITIALIZED, NAIVE, PAPER, InProcess, result_of, study


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_every_cell_of_the_tables_is_the_runs(studied):
    """And none is the paper's: these data are not."""
    out, _ = studied
    result = result_of(out)
    ours = {name: summaries(out, name) for name in ("naive-fc", "initialized-fc", "paper")}

    def spread(name, method, k):
        values = [summary["errors"]["expsum"][method][k] for summary in ours[name]]
        mean = sum(values) / 2
        return {"mean": pytest.approx(mean), "std": pytest.approx(abs(values[0] - values[1]) / 2**0.5), "n": 2}

    rows = {row[0]: row for row in result["tables"]["crops"]["rows"]}
    assert set(rows) == set(ours)
    for name, row in rows.items():
        assert row[1:] == [spread(name, method, "top1") for method in ("full", "centre", "10-crop", "12-crop")]
    table = result["tables"]["systems"]
    assert set(table["header"]) >= {"val top-1", "epochs"} and "paper" not in table["header"]
    rows = {row[0]: dict(zip(table["header"], row, strict=True)) for row in table["rows"]}
    assert set(rows) == set(ours)
    means = [row["val top-1"]["mean"] for row in rows.values()]
    assert means == sorted(means), "the best first"
    for name, epochs in (("naive-fc", 2), ("initialized-fc", 2), ("paper", 4)):
        row = rows[name]
        assert row["seeds"] == 2 and row["val top-5"] == spread(name, "12-crop", "top5") and row["epochs"] == epochs
        assert row["val top-1"] == spread(name, "12-crop", "top1")
        assert row["centre top-1"] == spread(name, "centre", "top1")
        for column, key in (("train s", "train_s"), ("wall s", "wall_s")):
            assert row[column]["mean"] == pytest.approx(sum(summary[key] for summary in ours[name]) / 2)
    (best, *_), by_class = rows, result["tables"]["classes"]["rows"]
    for _, images, error, _, *others in by_class:
        assert images == 5 and len(others) == 2 and error["n"] == 2
    wrong = sum(images * error["mean"] for _, images, error, *_ in by_class) / 20
    assert wrong == pytest.approx(rows[best]["val top-1"]["mean"])
    for name, how, ten, twelve in result["tables"]["combinations"]["rows"]:
        for cell, method in ((ten, "10-crop"), (twelve, "12-crop")):
            assert cell["mean"] == pytest.approx(sum(s["errors"][how][method]["top1"] for s in ours[name]) / 2)
    gates = {row[0]: row[2:] for row in result["tables"]["gates"]["rows"]}
    for name, (every, _, gated, views, fewer, held_out, held_views) in gates.items():
        for cell, key in ((gated, "error"), (views, "views"), (held_out, "held_out"), (every, "all_views")):
            assert cell["mean"] == pytest.approx(sum(s["gate"][key] for s in ours[name]) / 2)
        assert fewer == pytest.approx(12 / held_views["mean"]) and every == spread(name, "12-crop", "top1")
    speeds = result["tables"]["stages"]["rows"]
    trained = [("naive-fc", "all"), *(("initialized-fc", s.name) for s in PAPER.stages[:2])]
    assert sorted((row[0], row[1]) for row in speeds) == sorted(
        [*trained, *(("paper", s.name) for s in PAPER.stages[2:])]
    )


@pytest.mark.slow
def test_standard_error_is_that_of_the_images_and_the_seeds(studied):
    table = result_of(studied[0])["tables"]["systems"]
    rows = (dict(zip(table["header"], row, strict=True)) for row in table["rows"])
    row = next(row for row in rows if row["system"] == "paper")
    p = (row["val top-1"]["mean"] / 100 * 20 + 2) / 24
    assert row["s.e."] == pytest.approx(((1e4 * p * (1 - p) / 24) + row["val top-1"]["std"] ** 2 / 2) ** 0.5)


@pytest.mark.slow
def test_page_is_whole_and_needs_no_network(studied):
    out, _ = studied
    text = (out / "report.html").read_text()
    pictures = result_of(out)["pictures"]
    assert {"error by epoch", own.FILTERS, own.ANSWERS} == set(pictures)
    assert text.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text) and "http" not in text
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings[0] == "Error by class" and headings[-2:] == ["Cost", "How this was made"]
    assert {"Systems", "Error by epoch", "Crop methods", "What the crop method changes"} <= set(headings)
    assert not re.search("Tiny ImageNet|the paper|The paper|K520", text)
    for name in pictures.values():
        with Image.open(out / name) as image:
            assert image.format == "PNG" and min(image.size) > 300


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(studied, packed, launch, tmp_path, capsys):
    shutil.copytree(studied[0], tmp_path / "out")
    study(packed, tmp_path, "--seeds", 2, "--json")
    assert launch.calls == []
    assert json.loads(capsys.readouterr().out)["tables"] == result_of(studied[0])["tables"]


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(packed, launch, tmp_path, capsys):
    """Stopped during the second run: the first is kept, and nothing is trained twice."""
    launch.answer = lambda arguments: 75 if "initialized-fc" in arguments[arguments.index("--run-dir") + 1] else None
    study(packed, tmp_path, "--jobs", 1, code=75)
    assert launch.names() == ["naive-fc-s0", "initialized-fc-s0"]
    assert "during initialized-fc, seed 0; the same command goes on there" in capsys.readouterr().err
    launch.answer = lambda arguments: None
    study(packed, tmp_path)
    assert launch.names()[2:] == ["initialized-fc-s0", "paper-s0"]


@pytest.mark.slow
def test_a_run_that_diverges_is_a_row(packed, launch, tmp_path, capsys):
    """A rate of 1e30 at once gives no finite loss; the other systems are there, and its status is said."""
    wild = replace(NAIVE, optimizer=replace(NAIVE.optimizer, lr=1e30))
    study(packed, tmp_path, schedules=(wild, INITIALIZED))
    row = next(row for row in result_of(tmp_path / "out")["tables"]["systems"]["rows"] if row[0] == "naive-fc")
    assert row[2] is None and row[3] is None and row[-1] == "1 diverged"
    out = capsys.readouterr().out
    assert "1 diverged" in out and "naive-fc, seed 0: the training loss is" in out
    before = len(launch.calls)
    study(packed, tmp_path, schedules=(wild, INITIALIZED))
    assert len(launch.calls) == before, "it would diverge again"


def test_a_run_that_fails_otherwise_is_the_exit_code_but_not_the_end(packed, launch, tmp_path, capsys):
    launch.answer = lambda arguments: 4 if "naive" in arguments[arguments.index("--run-dir") + 1] else None
    study(packed, tmp_path, schedules=(NAIVE, INITIALIZED), code=4)
    assert [row[0] for row in result_of(tmp_path / "out")["tables"]["systems"]["rows"]] == ["initialized-fc"]
    assert "naive-fc, seed 0: exit code 4" in capsys.readouterr().out


@pytest.mark.slow
def test_another_configuration_in_the_folder_is_refused(studied, packed, launch, tmp_path, capsys):
    shutil.copytree(studied[0], tmp_path / "out")
    study(packed, tmp_path, "--set", "optimizer.lr=0.01", code=2)
    assert "schedule.optimizer.lr: 0.005 in the folder, 0.01 now" in capsys.readouterr().err and launch.calls == []


@pytest.mark.slow
def test_figures_are_redrawn_from_run_folders(studied, tmp_path):
    """No training: the folders are enough, wherever they are."""
    shutil.copytree(studied[0] / "runs", tmp_path / "elsewhere")
    runs = sorted((tmp_path / "elsewhere").glob("*"))  # as README has it: nothing else lies there
    assert run_command(lambda: study_module.main(["--figures", *map(str, runs), "--out", str(tmp_path / "out")])) == 0
    again, before = result_of(tmp_path / "out"), result_of(studied[0])
    assert again["tables"] == before["tables"] and again["verdicts"] == before["verdicts"]
    for name in before["pictures"].values():
        assert (tmp_path / "out" / name).read_bytes() == (studied[0] / name).read_bytes()


@pytest.mark.slow
def test_figures_without_the_data_are_all_but_figure_7(studied, launch, tmp_path):
    """Redrawn on another machine, say: the packed folder is not there. One that is asked for by name must be."""
    shutil.copytree(studied[0] / "runs", tmp_path / "runs")
    for file in tmp_path.glob("runs/*/summary.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "data": str(tmp_path / "gone")}))
    command = ["--figures", *map(str, sorted((tmp_path / "runs").glob("*-s?"))), "--out", str(tmp_path / "out")]
    assert run_command(lambda: study_module.main(command)) == 0
    again, before = result_of(tmp_path / "out"), result_of(studied[0])
    assert again["tables"] == {key: table for key, table in before["tables"].items() if key != own.ANSWERS}
    (note,) = [note for note in again["notes"] if "what the crop method changes is not drawn" in note]
    assert str(tmp_path / "gone") in note
    assert run_command(lambda: study_module.main([*command, "--data", str(tmp_path / "gone")])) == 3


@pytest.mark.slow
def test_set_weights_is_for_all_seeds(studied, packed, launch, tmp_path):
    nets = [str(studied[0] / "runs" / f"naive-fc-s{seed}" / "final.safetensors") for seed in (0, 1)]
    study(
        packed,
        tmp_path,
        "--weights",
        f"resnet18={nets[0]}",
        "--set",
        f"weights={nets[1]}",
        schedules=(replace(NAIVE, weights=nets[0]),),
    )
    config = json.loads((tmp_path / "out" / "runs" / "naive-fc-s0" / "config.json").read_text())
    assert config["schedule"]["weights"] == nets[1]


@pytest.mark.slow
def test_a_net_that_does_not_fit_is_said_before_anything_is_trained(studied, packed, launch, tmp_path, capsys):
    """Also the second seed's."""
    net = str(studied[0] / "runs" / "naive-fc-s0" / "final.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    study(
        packed,
        tmp_path,
        "--weights",
        f"resnet18={net}",
        "--weights",
        f"resnet18={tmp_path / 'bad.pth'}",
        "--seeds",
        2,
        schedules=(replace(NAIVE, weights=net),),
        code=3,
    )
    assert "bad.pth" in capsys.readouterr().err and launch.calls == []


@pytest.mark.slow
def test_several_nets_are_dealt_to_the_seeds(studied, packed, launch, tmp_path):
    """Three seeds, two nets: each run starts from its seed's net, and all are seeds of one system."""
    nets = [str(studied[0] / "runs" / f"naive-fc-s{seed}" / "final.safetensors") for seed in (0, 1)]
    given = [f"resnet18={net}" for net in nets]
    study(
        packed,
        tmp_path,
        "--weights",
        given[0],
        "--weights",
        given[1],
        "--seeds",
        3,
        schedules=(replace(NAIVE, weights=nets[0]),),
    )
    configs = [json.loads((tmp_path / "out" / "runs" / f"naive-fc-s{k}" / "config.json").read_text()) for k in range(3)]
    assert [config["schedule"]["weights"] for config in configs] == [nets[0], nets[1], nets[0]]
    assert result_of(tmp_path / "out")["tables"]["systems"]["rows"][0][1] == 3
