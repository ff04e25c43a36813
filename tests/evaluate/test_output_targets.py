"""What export, evaluate and show may replace: what they have written themselves, and nothing of anybody else."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate.belonging import data_of
from fastres.machine.command import run_command
from fastres.model import export
from fastres.model.network import Architecture, build
from fastres.track import show
from tests.evaluate.test_outputs import WEIGHTS, refused, run  # noqa: F401 - a fixture


def ends(main, *words) -> int:
    return run_command(lambda: main([str(word) for word in words]))


@pytest.mark.fault(37)
def test_no_output_replaces_the_file_of_classes(packed, tmp_path, capsys):
    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"{c.wnid}\n" for c in load_manifest(packed).classes))
    before = classes.read_bytes()
    words = (WEIGHTS, "--classes", classes)
    says = "would overwrite what this command reads"
    for option in ("--safetensors", "--onnx"):
        refused(export.main, *words, option, classes, says=says, capsys=capsys)
    bare = tmp_path / "bare.pth"  # says nothing of its classes, so that --classes is taken
    torch.save(build(Architecture("resnet18", 8, 4)).state_dict(), bare)
    answers = ("--split", "test", "--submission", classes, "--side", "16", "--device", "cpu")
    refused(evaluate.main, bare, "--classes", classes, "--data", packed, *answers, says=says, capsys=capsys)
    assert classes.read_bytes() == before


@pytest.mark.fault(37)
@pytest.mark.parametrize("name", ["thesis.txt", "other/config.json", "other/final.safetensors", "data/manifest.json"])
def test_an_output_replaces_only_what_its_command_writes(run, packed, tmp_path, capsys, name):  # noqa: F811
    other = shutil.copytree(run, tmp_path / "other")
    shutil.copytree(packed, tmp_path / "data")
    (tmp_path / "thesis.txt").write_text("My thesis, the only copy.\nIt is long.\n")
    target = tmp_path / name
    before = target.read_bytes()
    for command in (
        (export.main, run, "--safetensors", target),
        (export.main, run, "--onnx", target),
        (show.main, run, "--out", target),
        (evaluate.main, WEIGHTS, "--data", packed, "--split", "test", "--submission", target, "--device", "cpu"),
    ):
        main, *words = command
        assert ends(main, *words) == 2
        assert capsys.readouterr().err.count("error: ") == 1 and target.read_bytes() == before
    assert (other / "log.jsonl").exists()
    page = tmp_path / "page.html"  # what it has written, it writes again
    for _ in range(2):
        assert ends(show.main, run, "--out", page) == 0
        assert ends(export.main, run, "--safetensors", tmp_path / "mine.safetensors") == 0


@pytest.mark.fault(37)
def test_two_names_of_one_file_are_one(run, tmp_path, capsys):  # noqa: F811
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for twin in (tmp_path / "deep" / ".." / "x", tmp_path / "link" / "x"):
        refused(export.main, run, "--safetensors", tmp_path / "x", "--onnx", twin, says="two files", capsys=capsys)


@pytest.mark.fault(43)
@pytest.mark.parametrize("data", [5, None, ["a"], {}, ""])
def test_a_summary_whose_data_is_no_path(run, data):  # noqa: F811
    (run / "summary.json").write_text(json.dumps({"status": "done", "data": data}))
    assert data_of(run, None) == Path("packed")


@pytest.mark.fault(43)
def test_a_run_that_is_a_link_to_itself(tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert ends(show.main, tmp_path / "loop") in (2, 3, 4)
    assert capsys.readouterr().err.count("error: ") == 1
