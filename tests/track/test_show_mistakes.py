"""The dashboard's part on what a run gets wrong: its tables and pictures, none where there is no folder, one sentence
where that is damaged."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fastres.machine.errors import DataError
from fastres.track.answer_pictures import Panel, answer_lines, answer_sheet, confusion_matrix
from fastres.track.mistakes import class_table, sections

METHODS = ("full", "centre", "10-crop", "12-crop")


def made() -> dict:
    """Twelve classes of 10 images, class k with k wrong ones, all taken for class 0; class 12 has no image."""
    classes = [
        {"class": f"n{k}", "name": f"<kind {k}>", "images": 10, "wrong": k, "top1_err": 10.0 * k, "standard_error": 1.0}
        for k in range(1, 12)
    ]
    classes.append({"class": "n12", "name": "empty", "images": 0, "wrong": 0, "top1_err": None, "standard_error": None})
    pairs = [{"truth": f"<kind {k}>", "answer": "zero", "images": k, "share_pct": 10.0 * k} for k in range(11, 0, -1)]
    worst = {"image": "val/a&b.jpg", "truth": "<kind 1>", "answer": "zero", "probability": 0.987}
    worst["by_method"] = dict.fromkeys(METHODS, "zero")
    return {"method": "12-crop", "combine": "expsum", "classes": classes, "confusions": pairs, "worst": [worst]}


def test_the_largest_errors_come_first_and_the_rest_is_folded(tmp_path):
    assert sections(tmp_path, "one") == []
    folder = tmp_path / "mistakes"
    folder.mkdir()
    (folder / "mistakes.json").write_text(json.dumps(made()))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "confusion_matrix.png")
    page = "\n".join(sections(tmp_path, "one"))
    assert "<kind" not in page and "&lt;kind 11&gt;" in page and "val/a&amp;b.jpg" in page and "98.70" in page
    assert re.findall(r'<img alt="([^"]*)"', page) == ["one: confusion matrix"]
    first = page.partition("<details>")[0]
    assert [f"kind {k}&" in first for k in (11, 10, 3, 2)] == [True] * 4 and "kind 1&" not in first
    assert page.count("<details>") == 2 and class_table(made())[1][-1] == ["empty", 0, 0, None, None]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"classes": 3}'])
def test_a_damaged_folder_is_one_sentence(tmp_path, content):
    (tmp_path / "mistakes").mkdir()
    (tmp_path / "mistakes/mistakes.json").write_text(content)
    with pytest.raises(DataError, match=r"mistakes\.json.*remove it"):
        sections(tmp_path, "one")


def shades(path) -> set[tuple]:
    with Image.open(path) as picture:
        return set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))


def test_a_matrix_shows_each_share_in_its_cell(tmp_path):
    """Class 1 of 3 is taken for class 0 most often: the darkest cell stands in row 1, column 0."""
    counts = np.array([[9, 1, 0], [5, 5, 0], [0, 0, 10]])
    with Image.open(confusion_matrix(counts, ["a", "b", "c"], tmp_path / "a.png")) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    left, top, cell = 190, 70, 93
    middle = pixels[top + cell // 2 :: cell, left + cell // 2 :: cell][:3, :3]
    dark = middle.sum(-1)
    assert dark[1, 0] == dark.min() and dark[1, 0] < dark[0, 1] < dark[0, 2] == dark[2, 1] == dark[1, 2]
    assert (middle[range(3), range(3)] == 200).all(), "the diagonal is gray"


@pytest.mark.parametrize("classes", [2, 60, 200, 260])
def test_a_matrix_of_any_size(tmp_path, classes):
    names = [f"$a_{k}$ rather long name of a class {k}" for k in range(classes)]
    with Image.open(confusion_matrix(np.eye(classes, dtype=int), names, tmp_path / "a.png")) as picture:
        assert 500 <= picture.width < 2500 and 400 <= picture.height < 2500


def test_a_sheet_has_a_panel_an_image(tmp_path):
    panels = [
        Panel(np.full((4, 4, 3), 20 * k, np.uint8), "truth", answer_lines({"full": "truth", "centre": "no"}, "truth"))
        for k in range(1, 6)
    ]
    assert [right for _, right in panels[0].lines] == [True, False]
    answer_sheet(panels, tmp_path / "a.png")
    assert {(20 * k, 20 * k, 20 * k) for k in range(1, 6)} <= shades(tmp_path / "a.png")
