"""pack.py --val-fraction on a folder of classes: the folder itself is train/, unless it could be read in two ways."""

import shutil

import numpy as np
import pytest

from fastres.data.manifest import load_manifest
from tests.support.packing import arrays
from tests.support.trees import picture, read_image, write_classes, write_image, write_tree

COUNTS = {"ash": 4, "birch": 3, "oak": 1}


@pytest.fixture
def photos(tmp_path):
    return write_classes(tmp_path / "photos", COUNTS)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_folder_of_classes_needs_no_train(photos, packer, tmp_path, kind):
    """The pixels and labels that it has with train/; words.txt and wnids.txt beside the folder are another's."""
    (photos / "train").rename(trees := photos / "trees")
    for text in ("wnids.txt", "words.txt"):
        (photos / text).write_text("n0\tnothing\n")
    source = trees
    if kind != "folder":
        source = tmp_path / f"trees.{kind}"
        shutil.make_archive(str(source.with_suffix("")), kind, photos, "trees")
    code, out, err = packer("--source", source, "--val-fraction", "0.2")
    assert code == 0, err
    found = {split: arrays(packer.out, split) for split in ("train", "val")}
    assert all(name.startswith("trees/") for split in found.values() for name in split[2])
    assert sum(len(split[2]) for split in found.values()) == sum(COUNTS.values())
    assert [c.wnid for c in load_manifest(packer.out).classes] == sorted(COUNTS)
    for images, labels, names in found.values():
        for pixels, label, name in zip(images, labels, names, strict=True):
            assert sorted(COUNTS)[label] == name.split("/")[1]
            assert np.array_equal(pixels, read_image(photos / name))


def test_without_a_share_the_message_names_the_option_for_class_folders_too(photos, packer):
    code, _, err = packer("--source", photos / "train")
    assert code == 3 and "no train/ folder" in err and "--val-fraction 0.2" in err


def test_the_train_folder_of_a_tree_with_wnids_is_not_that_tree(packer, tmp_path):
    write_tree(tmp_path / "tiny-imagenet-200")
    code, _, err = packer("--source", tmp_path / "tiny-imagenet-200/train", "--val-fraction", "0.5")
    assert code == 0, err
    assert "val" not in load_manifest(packer.out).source.get("beside", [])


def images_in(root, *folders):
    for folder in folders:
        for i in range(3):
            write_image(root / folder / f"{i}.png", picture(16, hash((folder, i)) % 1000), "PNG")
    return root


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("car", "train", "plane"), ["car", "plane", "train"]),  # a class that is called as a split is
        (("cat/images", "dog/images"), ["cat", "dog"]),
        (("wrapped/train/a", "wrapped/train/b"), ["a", "b"]),  # one folder around a data set
        (("train/a", "train/b", "notes"), ["a", "b"]),
    ],
    ids=str,
)
def test_which_folders_are_classes(packer, tmp_path, folders, classes):
    root = images_in(tmp_path / ".photos", *folders)  # hidden itself, and asked for
    code, _, err = packer("--source", root, "--val-fraction", "0.34")
    assert code == 0, err
    assert [c.wnid for c in load_manifest(packer.out).classes] == classes


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("cat", "dog", "dog/training/agility", "dog/training/tricks"), "a train/ in dog/ and other folders beside it"),
        (("val/a", "val/b", "test/a"), "no train/ folder"),
        (("seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_test/seg_test/b"), "no train/"),
        (("cat", "dog", "val/cat", "val/dog"), "no train/ folder"),
        (("tiny/train/a", "tiny/train/b", "other"), "a train/ in tiny/ and other folders"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_could_be_read_in_two_ways_is_refused(packer, tmp_path, folders, says, kind):
    source = images_in(tmp_path / "photos", *folders)
    if kind == "zip":
        source = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path, "photos")
    code, _, err = packer("--source", source, "--val-fraction", "0.34")
    assert code == 3 and says in err.replace("photos/", ""), err
