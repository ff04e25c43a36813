"""The challenge's answers: one line an image, by any crop of Table 1."""

import pytest
import torch

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate import combining
from fastres.evaluate.scores import score
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.schedules.types import ViewSettings
from fastres.views.geometry import Geometry

CPU = torch.device("cpu")


def command(*arguments) -> int:
    return run_command(lambda: evaluate.main([str(a) for a in (*arguments, "--device", "cpu")]))


def test_submission_names_every_test_image_once(packed, weights, tmp_path):
    answers = tmp_path / "answers.txt"
    assert command(weights, "--data", packed, "--split", "test", "--submission", answers) == 0
    rows = [line.split(" ") for line in answers.read_text().splitlines()]
    assert [name for name, _ in rows] == [f"test_{i}.JPEG" for i in range(6)]
    known = {info.wnid for info in load_manifest(packed).classes}
    assert {wnid for _, wnid in rows} <= known


def test_test_split_without_submission_is_a_usage_error(packed, weights, capsys):
    assert command(weights, "--data", packed, "--split", "test") == 2
    assert "--submission" in capsys.readouterr().err


@pytest.mark.parametrize("method", combining.METHODS)
def test_a_submission_by_any_crop_of_table_1(packed, net, weights, tmp_path, method):
    """The class whose e^score has the largest sum over those views, image by image."""
    answers = tmp_path / "answers.txt"
    given = ("--split", "test", "--submission", answers, "--precision", "fp32")
    assert command(weights, "--data", packed, *given, "--views", method) == 0
    manifest = load_manifest(packed)
    plan = views.TestPlan(geometry=Geometry(16, 4), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    scores = score(net, Resident(packed, manifest, "test", CPU), plan, Precision("fp32", CPU)).double()
    wanted = {"full": [10], "centre": [0], "10-crop": range(10), "12-crop": range(12)}[method]
    sums = [sum(one[view].exp() for view in wanted) for one in scores]
    expected = [manifest.classes[int(total.argmax())].wnid for total in sums]
    assert [line.split()[1] for line in answers.read_text().splitlines()] == expected


@pytest.mark.parametrize(
    ("given", "words"), [((), "expected --submission FILE"), (("--submission", "a", "--gate", "2"), "drop one")]
)
def test_views_that_would_do_nothing_are_a_usage_error(packed, weights, tmp_path, capsys, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    assert command(weights, "--data", packed, "--views", "full", *given) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "a").exists()
