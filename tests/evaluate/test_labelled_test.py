"""A test split sorted into the classes' folders is scored; answers name images by their paths where that is needed."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate.submission import write_submission
from fastres.machine.command import run_command
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from tests.support.packing import arrays, verify_all
from tests.support.trees import picture, write_image

LABELS = ("cat", "dog 9")


@pytest.fixture
def photos(tmp_path):
    """Two classes; test images named alike in both."""
    root = tmp_path / "photos"
    for split, count in (("train", 2), ("val", 1), ("test", 2)):
        for seed, label in enumerate(LABELS):
            for i in range(count):
                write_image(root / f"{split}/{label}/{i}.jpg", picture(16, 7 * seed + i))
    return root


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    net = build(Architecture("resnet18", 8, 2)).eval()
    (tmp_path / "net.safetensors").write_bytes(
        save_weights(net, {"upscale": 4, "convention": "half-pixel", "side": 16})
    )
    return tmp_path / "net.safetensors"


def command(*arguments) -> int:
    return run_command(lambda: evaluate.main([str(a) for a in arguments]))


def test_it_is_scored_and_answered(photos, packer, weights, tmp_path, capsys):
    code, _, err = packer("--source", photos)
    assert code == 0, err
    packed, answers = tmp_path / "packed", tmp_path / "answers.txt"
    manifest = verify_all(packed)
    _, labels, files = arrays(packed, "test")
    assert manifest.splits["test"]["labelled"] and manifest.splits["test"]["per_class"] == [2, 2]
    assert [LABELS[label] for label in labels] == [file.split("/")[1] for file in files]
    for _ in range(2):  # the second time over its own answers
        words = ("--data", packed, "--split", "test", "--submission", answers, "--json")
        assert command(weights, *words) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [line.split(" ", 1) for line in answers.read_text().splitlines()]
    assert [name for name, _ in rows] == ["cat/0.jpg", "cat/1.jpg", "dog", "dog"]
    assert [f"test/{line}".startswith(file) for line, file in zip(answers.read_text().splitlines(), files)] == [
        True
    ] * 4
    wrong = sum(not line.endswith(f" {LABELS[label]}") for line, label in zip(answers.read_text().splitlines(), labels))
    assert result["errors"]["expsum"]["12-crop"]["top1"] == pytest.approx(25.0 * wrong)
    assert sum(row["wrong"] for row in result["mistakes"]["classes"]) == wrong


def test_images_outside_the_classes_leave_it_unlabelled(photos, packer, tmp_path):
    shutil.copy(photos / "test/cat/0.jpg", photos / "test/cat.jpg")
    code, _, err = packer("--source", photos)
    assert code == 0 and "4 of 5 test images lie in folders of classes, and others, such as test/cat.jpg" in err
    assert not load_manifest(tmp_path / "packed").splits["test"]["labelled"]
    assert not (tmp_path / "packed/test.labels.npy").exists()


def test_a_part_has_its_classes_test_images_too(photos, packer, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(photos / split / "cat", photos / split / "ant")
    code, _, err = packer("--source", photos, "--classes", "0::2")
    assert code == 0, err
    _, labels, files = arrays(tmp_path / "packed", "test")
    assert labels.tolist() == [0, 0, 1, 1] and [file.split("/")[1] for file in files] == [
        "ant",
        "ant",
        "dog 9",
        "dog 9",
    ]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["test/images/test_0.JPEG", "test/images/test_1.JPEG"], ["test_0.JPEG", "test_1.JPEG"]),
        (["test/a.png", "test/b.png"], ["a.png", "b.png"]),
        (["testing/x/a.png", "testing/y/a.png"], ["x/a.png", "y/a.png"]),
        (["test/a.png", "test/y/a.png"], ["a.png", "y/a.png"]),
    ],
)
def test_names_are_as_short_as_they_can_be(packed, tmp_path, files, names):
    manifest = load_manifest(packed)
    ranking = torch.from_numpy(np.eye(4)[[2, 3]])
    write_submission(tmp_path / "answers.txt", files, ranking, manifest)
    expected = [f"{name} {manifest.classes[c].wnid}" for name, c in zip(names, (2, 3), strict=True)]
    assert (tmp_path / "answers.txt").read_text().splitlines() == expected


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["test/images/test_0.JPEG", "test/images/test_1.JPEG"], ["test_0.JPEG", "test_1.JPEG"]),
        (["test/cat/0.jpg", "test/dog/0.jpg"], ["cat/0.jpg", "dog/0.jpg"]),
        (["5.png", "6.png"], ["5.png", "6.png"]),  # a CSV's, beside it
        (["5.png", "scans/5.png"], ["5.png", "scans/5.png"]),
        (["a/5.png", "b/5.png"], ["a/5.png", "b/5.png"]),
        (["test/only.jpg"], ["only.jpg"]),
    ],
)
def test_answers_name_every_image_once(tmp_path, files, names):
    manifest = SimpleNamespace(classes=[SimpleNamespace(wnid="cat"), SimpleNamespace(wnid="dog")])
    write_submission(tmp_path / "a.txt", files, torch.eye(2)[[0] * len(files)], manifest)
    assert (tmp_path / "a.txt").read_text() == "".join(f"{name} cat\n" for name in names)


@pytest.mark.parametrize(("second", "labelled"), [("dog", True), ("", False), ("bird", False)])
def test_a_csvs_test_rows_are_labelled_where_all_have_a_class(tmp_path, packer, second, labelled):
    rows = [
        ("0", "cat", "train"),
        ("1", "dog", "train"),
        ("2", "cat", "val"),
        ("3", "cat", "test"),
        ("4", second, "test"),
    ]
    for name, _, _ in rows:
        write_image(tmp_path / f"{name}.png", picture(16, int(name)), "PNG")
    (tmp_path / "labels.csv").write_text("".join(f"{name}.png,{label},{split}\n" for name, label, split in rows))
    code, _, err = packer("--source", tmp_path / "labels.csv")
    assert code == 0, err
    manifest = verify_all(packer.out)
    assert manifest.splits["test"]["labelled"] is labelled
    assert labelled or "1 of 2 test images have a label that train has, and others, such as 4.png, do not" in err
