"""What predict takes and leaves: folders, patterns, lists, bad files among good ones; a CSV file, JSON lines."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from fastres.machine.command import run_command
from fastres.machine.errors import MachineError, UsageError
from fastres.model.weights import save_weights
from fastres.predict import __main__ as predict
from fastres.predict import answering
from fastres.predict.named import images_of
from tests.support.t7_files import network
from tests.support.trees import picture, write_image

NAMES = ("a/1.jpg", "a/2.png", "b/deep/3.jpg", "b/4")  # the last one has no ending that says image


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Four images below photos/, and what is none: a text, a hidden image, a raw photo, a link back to the top."""
    for seed, name in enumerate(NAMES):
        write_image(tmp_path / "photos" / name, picture(20, seed), "PNG" if "png" in name else "")
    (tmp_path / "photos/notes.txt").write_text("not an image")
    write_image(tmp_path / "photos/.hidden.jpg", picture(20, 9))
    (tmp_path / "photos/raw.dng").write_bytes(b"II*\0")
    (tmp_path / "photos/b/up").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return [Path("photos") / name for name in NAMES]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    classes = [["n1", "crane"], ["n2", "crane"], ["n3", "cat"]]
    facts = {"classes": classes, "side": 16, "upscale": 4, "convention": "half-pixel"}
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    path.write_bytes(save_weights(network(width=8, classes=3), facts))
    return path


def named(*words, listed: bytes = b"") -> list[str]:
    return [str(path) for path in images_of([Path(word) for word in words], lambda: listed)]


def test_folders_patterns_and_lists_name_their_images(photos):
    everything = sorted(map(str, photos))
    assert named("photos") == everything
    assert named("photos/**") == everything, "each once, though ** matches folders and what is in them"
    assert named("photos/*/*.jpg") == ["photos/a/1.jpg"] and named("photos/*") == everything
    assert named("photos/b/4", "photos/a") == ["photos/b/4", "photos/a/1.jpg", "photos/a/2.png"]
    for listed in (b"photos/b/4\nphotos/a\n", b"photos/b/4\0photos/a\0", b"photos/b/4\r\nphotos/a\r\n"):
        assert named("-", listed=listed) == ["photos/b/4", "photos/a/1.jpg", "photos/a/2.png"]
    odd = os.fsdecode(b"photos/a/line\nbreak\xff[1].jpg")
    write_image(Path(odd), picture(20, 5))
    assert named(odd) == [odd], "a file's own name is no pattern"
    assert named("-", listed=os.fsencode(odd) + b"\0photos/a/2.png\0") == [odd, "photos/a/2.png"]
    assert named("photos/notes.txt") == ["photos/notes.txt"], "what is named itself is tried"


@pytest.mark.parametrize("word", ["photos/none.jpg", "photos/*.tiff", "phtos/**/*.jpg", "empty", "-"])
def test_a_word_that_names_no_image(photos, word):
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=r"image .*expected|image .*check it"):
        named(word, listed=b"\n \n")


def command(*words) -> int:
    return run_command(lambda: predict.main([str(word) for word in words]))


def test_a_bad_file_is_said_and_the_others_are_answered(photos, model, monkeypatch, capsys):
    """Through standard input, several parts at a time, in processes: the same answers as one by one."""
    Path("photos/a/bad.jpg").write_text("no image")
    words = ("--model", model, "--precision", "fp32", "--json")
    assert command("photos", *words) == 3
    alone, said = capsys.readouterr()
    monkeypatch.setattr(answering, "AT_ONCE", 1)
    monkeypatch.setitem(answering.VIEWS_PER_PASS, "cpu", 12)
    listed = io.BytesIO(b"".join(b"%s\0" % os.fsencode(name) for name in named("photos")))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(listed))
    assert command("-", *words) == 3
    out, err = capsys.readouterr()
    assert said.count("bad.jpg: found b'no image'") == err.count("bad.jpg: found b'no image'") == 1
    assert "error: 1 of 5 images could not be read" in said and "error: 1 of 5" in err
    rows, same = ([json.loads(line) for line in text.splitlines()] for text in (alone, out))
    assert [row["image"] for row in rows] == [row["image"] for row in same] == named("photos")
    assert [("error" in row, "top" in row) for row in rows] == [(n == 2, n != 2) for n in range(5)]
    for row, other in zip(rows, same, strict=True):
        for one, two in zip(row.get("top", ()), other.get("top", ()), strict=True):
            assert one == {**two, "probability": pytest.approx(two["probability"], abs=1e-5)}


def test_a_csv_file_has_a_row_an_image(photos, model, capsys):
    words = ("photos", "--model", model, "--csv", "answers.csv")
    assert command(*words, "--json") == 0
    top = [json.loads(line)["top"] for line in capsys.readouterr().out.splitlines()]
    assert command(*words) == 0 and capsys.readouterr().out == ""
    header, *rows = csv.reader(Path("answers.csv").read_text().splitlines())
    assert header == ["image", *(f"{what} {k}" for k in (1, 2, 3) for what in ("answer", "probability"))]
    assert [row[0] for row in rows] == named("photos")
    shown = {"n1": "crane (n1)", "n2": "crane (n2)", "n3": "cat"}
    for row, best in zip(rows, top, strict=True):
        assert row[1::2] == [shown[one["class"]] for one in best]
        assert list(map(float, row[2::2])) == pytest.approx([one["probability"] for one in best], rel=1e-4)
    for taken in ("photos/notes.txt", "photos/a/1.jpg", model):
        before = Path(taken).read_bytes()
        assert command("photos", "--model", model, "--csv", taken) == 2 and Path(taken).read_bytes() == before
        assert capsys.readouterr().err.count("error: ") == 1


def test_only_the_views_that_are_asked_for_are_made(photos, model, capsys):
    net, card, precision = answering.open_model(model, "fp32", torch.device("cpu"))
    made = {
        method: len(answering.Answering(net, card, precision, model, method, "expsum").plan.views)
        for method in ("full", "centre", "10-crop", "12-crop")
    }
    assert made == {"full": 1, "centre": 1, "10-crop": 10, "12-crop": 12}


@pytest.mark.parametrize("word", ["photos", "photos/a", "photos/**/*.jpg", "-"])
def test_a_folder_that_cannot_be_listed_is_said(photos, monkeypatch, word):
    """Its images would be missing among the answers without a word."""
    listed = os.scandir

    def scandir(path):
        if str(path).rstrip("/").endswith("photos/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MachineError, match="photos/a: cannot be listed"):
        named(word, listed=b"photos\n")


def test_lists_as_other_systems_write_them(photos):
    for encoding in ("utf-16", "utf-8-sig"):
        assert named("-", listed="photos/b/4\r\nphotos/a/1.jpg\r\n".encode(encoding)) == [
            "photos/b/4",
            "photos/a/1.jpg",
        ]
    Path("empty").mkdir()
    with pytest.raises(UsageError, match="standard input names none.*folders without an image"):
        named("-", listed=b"empty\n")


def test_the_remedy_for_a_file_that_cannot_be_read(photos, model, capsys):
    assert command("photos/a/1.jpg", "photos/a/dangling.jpg", "--model", model) == 2
    Path("photos/a/dangling.jpg").symlink_to("nowhere")
    assert command("photos/a/1.jpg", "photos/a/dangling.jpg", "--model", model, "--device", "cpu") == 3
    said = capsys.readouterr().err
    assert "cannot be read (No such file or directory); check the path" in said and "convert" not in said
