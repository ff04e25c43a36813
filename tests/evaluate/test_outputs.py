"""What export, evaluate and show write replaces nothing that they read; studies and searches keep to their folders."""

import json
import shutil

import pytest

from fastres.evaluate import __main__ as evaluate
from fastres.machine.command import run_command
from fastres.model import export
from fastres.model.weights import SHIPPED
from fastres.study import __main__ as study
from fastres.study.search import __main__ as search
from fastres.track import show
from tests.conftest import TINY_FILE

WEIGHTS = SHIPPED / "small_world_resnet18_w16.safetensors"


@pytest.fixture
def run(tmp_path):
    """A run's folder, as far as its files' names go."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(WEIGHTS, folder / "final.safetensors")
    for name in ("log.jsonl", "lock", "checkpoints/stage0.pt"):
        (folder / name).write_text("")
    (folder / "config.json").write_text(json.dumps({"schedule": {"name": "x", "stages": []}, "seed": 0}))
    (folder / "summary.json").write_text("{}")
    return folder


def refused(main, *words, says: str, capsys) -> None:
    assert run_command(lambda: main([str(word) for word in words])) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "name", ["final.safetensors", "config.json", "log.jsonl", "checkpoints/stage0.pt", "lock", "summary.json"]
)
def test_no_output_replaces_a_runs_own_files(run, packed, name, capsys):
    before, says = (run / name).read_bytes(), "would overwrite what this command reads"
    for option in ("--safetensors", "--onnx"):
        refused(export.main, run, option, run / name, says=says, capsys=capsys)
    refused(show.main, run, "--out", run / name, says=says, capsys=capsys)
    assert (run / name).read_bytes() == before


@pytest.mark.fault(37)
@pytest.mark.slow
def test_an_export_may_lie_in_the_runs_folder_and_be_written_again(run, capsys):
    for _ in range(2):
        assert run_command(lambda: export.main([str(run), "--onnx", str(run / "net.onnx")])) == 0
    one = run / "both"
    refused(export.main, run, "--onnx", one, "--safetensors", one, says="expected two files", capsys=capsys)


@pytest.mark.fault(37)
def test_answers_replace_no_packed_file(packed, tmp_path, capsys):
    data = tmp_path / "packed"
    shutil.copytree(packed, data)
    for out in (data / "manifest.json", data / "test.files.txt", data / "none" / "x", WEIGHTS):
        words = (WEIGHTS, "--data", data, "--split", "test", "--submission", out, "--side", "16", "--device", "cpu")
        code = run_command(lambda words=words: evaluate.main([str(word) for word in words]))
        assert code in (2, 3) and capsys.readouterr().err.count("error: ") == 1
    assert (data / "manifest.json").read_bytes() == (packed / "manifest.json").read_bytes()


@pytest.mark.fault(37)
@pytest.mark.parametrize("name", ["report.html", "study.json", "search.db", "best.py", "runs/photo.jpg"])
def test_a_study_and_a_search_take_no_folder_of_somebody_else(packed, tmp_path, capsys, name):
    mine = tmp_path / "out"
    (mine / name).parent.mkdir(parents=True)
    (mine / name).write_text('{"mine": 1}')
    common = ("--data", packed, "--out", mine, "--device", "cpu")
    refused(search.main, "--schedule", TINY_FILE, *common, says="nothing was changed there", capsys=capsys)
    refused(study.main, "--schedules", TINY_FILE, *common, says="nothing was changed there", capsys=capsys)
    assert (mine / name).read_text() == '{"mine": 1}' and [p.name for p in mine.iterdir()] == [name.split("/")[0]]
