"""pack.py --val-fraction: each class's share, equal pixels on one side, the same images every time."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fastres.data.described import describe
from fastres.data.manifest import load_manifest
from preprocess.held_out import hold_out
from preprocess.sources.records import Layout, Record
from tests.support.packing import arrays, names_in, verify_all
from tests.support.trees import picture, read_image, write_classes, write_image, write_tree, zip_tree

COUNTS = {"ash": 10, "birch": 5, "cedar": 2, "oak": 1}


@pytest.fixture
def photos(tmp_path):
    return write_classes(tmp_path / "photos", COUNTS)


def held_by(packed):
    """{split: its files}, each in order."""
    return {split: arrays(packed, split)[2] for split in ("train", "val")}


def test_each_class_gives_its_share(photos, packer):
    code, out, err = packer("--source", photos, "--val-fraction", "0.2")
    assert code == 0, err
    manifest = verify_all(packer.out)
    assert manifest.splits["val"]["per_class"] == [2, 1, 1, 0] and manifest.splits["train"]["per_class"] == [8, 4, 1, 1]
    sides = held_by(packer.out)
    assert sorted(sides["train"] + sides["val"]) == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    for split in ("train", "val"):
        images, labels, files = arrays(packer.out, split)
        for row, path in enumerate(files):
            assert np.array_equal(images[row], read_image(photos / path))
            assert manifest.classes[labels[row]].wnid == path.split("/")[1]
    assert manifest.source["held_out"] == {"fraction": 0.2, "seed": 0, "train": 14, "val": 4}
    assert "20 % of train held out as val" in describe(manifest) and "4 images for val, 14 stay" in out
    assert manifest.splits["val"]["duplicates"] == 0


def test_the_same_again_is_up_to_date_and_another_share_is_another_data_set(photos, packer):
    digests = set()
    for options in (("0.2",), ("0.4",), ("0.4", "--val-seed", "1")):
        arguments = ("--source", photos, "--val-fraction", *options)
        assert packer(*arguments)[0] == 0
        digests.add(load_manifest(packer.out).content_digest)
        code, said, _ = packer(*arguments, "--json")
        assert code == 0 and json.loads(said)["status"] == "up to date"
    assert len(digests) == 3
    code, _, err = packer("--source", photos, "--val-fraction", "0.5")
    assert code == 0 and "val_fraction was [0.4, 1], is [0.5, 0]" in err


def test_the_split_is_that_of_the_paths_not_of_their_order(photos, packer, tmp_path):
    """From a zip, with several processes and at another side the same images are held out."""
    assert packer("--source", photos, "--val-fraction", "0.3")[0] == 0
    sides = held_by(packer.out)
    archive = zip_tree(photos, tmp_path / "photos.zip", "photos/")
    for more in (("--source", archive), ("--source", photos, "--workers", "2"), ("--source", photos, "--side", "8")):
        assert packer(*more, "--val-fraction", "0.3", out=tmp_path / "other")[0] == 0
        assert held_by(tmp_path / "other") == sides
    assert packer("--source", photos, "--val-fraction", "0.5", out=tmp_path / "other")[0] == 0
    assert set(held_by(tmp_path / "other")["val"]) > set(sides["val"]), "a larger share has the smaller one's"


@pytest.mark.parametrize("seed", range(4))
def test_equal_pixels_are_on_one_side(photos, packer, tmp_path, seed):
    """Other files, other names, even another class; and the second half of a class is the first half again."""
    for i in range(5):
        shutil.copy(photos / f"train/ash/ash {i}.png", photos / f"train/ash/ash {5 + i}.png")
        pixels = read_image(photos / f"train/birch/birch {i}.png")
        Image.fromarray(pixels).save(photos / f"train/ash/from birch {i}.bmp")
        shutil.copy(photos / f"train/birch/birch {i}.png", photos / f"train/cedar/{i}.png")
    code, _, err = packer("--source", photos, "--val-fraction", "0.4", "--val-seed", seed)
    assert code == 0, err
    pixels = {split: {bytes(np.asarray(image)) for image in arrays(packer.out, split)[0]} for split in ("train", "val")}
    assert not pixels["train"] & pixels["val"]
    splits = load_manifest(packer.out).splits
    assert splits["val"]["duplicates"] == 0 and all(splits["train"]["per_class"])
    assert all(splits["val"]["per_class"][:3]) and splits["val"]["per_class"][3] == 0


def by_hand(sizes: dict[str, list[int]], fraction: float, seed: int = 0) -> list[int]:
    """Images of val by class; `sizes`: how many images each picture of a class has."""
    records, pixels = [], {}
    for label, (name, groups) in enumerate(sizes.items()):
        for g, size in enumerate(groups):
            for i in range(size):
                record = Record(f"train/{name}/{g} {i}", label)
                records.append(record)
                pixels[record.path] = f"{name} {g}".encode()
    layout = hold_out(Layout((), {"train": records, "val": []}), pixels, fraction, seed)
    assert sorted(layout.splits["train"] + layout.splits["val"]) == sorted(records)
    return np.bincount([record.label for record in layout.splits["val"]], minlength=len(sizes)).tolist()


@pytest.mark.parametrize(
    ("groups", "fraction", "held"),
    [
        ([1] * 10, 0.25, 3),  # 2.5 is rounded up
        ([1] * 10, 0.01, 1),  # at least one
        ([1] * 10, 0.99, 9),  # never the last
        ([1, 1], 0.5, 1),
        ([5, 4], 0.1, 4),  # no picture is as small as the share: the smallest one
        ([7], 0.5, 0),  # one picture only, so nothing to hold out
        ([1], 0.5, 0),
        ([2] * 10, 0.2, 4),
    ],
)
def test_shares_by_hand(groups, fraction, held):
    for seed in range(5):
        assert by_hand({"a": groups, "beside": [1, 1, 1]}, fraction, seed)[0] == held


def test_bad_images_are_no_ones_share(photos, packer):
    for i in range(8):
        (photos / f"train/ash/ash {i}.png").write_bytes(b"no image")
    code, _, err = packer("--source", photos, "--val-fraction", "0.5")
    assert code == 3 and "found 8 of 18 images bad" in err and names_in(packer.out) == []
    code, _, err = packer("--source", photos, "--val-fraction", "0.5", "--on-bad", "skip")
    assert code == 0, err
    manifest = load_manifest(packer.out)
    assert (manifest.splits["train"]["skipped"], manifest.splits["val"]["skipped"]) == (8, 0)
    assert manifest.splits["val"]["per_class"] == [1, 3, 1, 0]
    assert manifest.splits["train"]["per_class"] == [1, 2, 1, 1]


def test_parts_of_it(photos, packer, tmp_path):
    arguments = ("--source", photos, "--val-fraction", "0.4", "--side", "8")
    assert packer(*arguments)[0] == 0
    whole = held_by(packer.out)
    assert packer(*arguments, "--classes", "0:2", "--per-class", "3,1")[0] == 0
    manifest, part = load_manifest(packer.out), held_by(packer.out)
    assert manifest.splits["train"]["per_class"] == [3, 3] and manifest.splits["val"]["per_class"] == [1, 1]
    for split in ("train", "val"):
        assert set(part[split]) < set(whole[split]), "what is trained on here is validation nowhere"
    assert manifest.source["selection"]["of"]["classes"] == 4 and manifest.source["held_out"]["val"] == 6


def test_where_there_is_one_it_is_refused(tmp_path, packer, capsys):
    write_tree(tmp_path / "tiny")
    code, _, err = packer("--source", tmp_path / "tiny", "--val-fraction", "0.2")
    assert code == 2 and "12 validation images of its own, expected none" in err and names_in(packer.out) == []
    shutil.rmtree(tmp_path / "tiny/val")
    code, _, err = packer("--source", tmp_path / "tiny")
    assert code == 3 and "no image in val/" in err and "--val-fraction" in err
    assert packer("--source", tmp_path / "tiny", "--val-fraction", "0.34")[0] == 0
    assert load_manifest(packer.out).splits["val"]["per_class"] == [2] * 4
    for wrong in (("--small-world", "--val-fraction", "0.2"), ("--val-seed", "3")):
        code, _, err = packer(*wrong)
        assert code == 2 and wrong[-2] in err


def test_without_one_the_message_names_the_option(photos, packer):
    code, _, err = packer("--source", photos)
    assert code == 3 and "no image in val/" in err and "--val-fraction 0.2" in err


@pytest.mark.parametrize("wrong", ["0", "1", "-0.1", "20", "x", "nan"])
def test_what_is_no_share(photos, packer, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        packer("--source", photos, f"--val-fraction={wrong}")
    assert stop.value.code == 2 and "--val-fraction" in capsys.readouterr().err


def test_nothing_to_hold_out(tmp_path, packer):
    for label in ("a", "b"):
        write_image(tmp_path / f"photos/train/{label}/1.png", picture(16, ord(label)), "PNG")
    code, _, err = packer("--source", tmp_path / "photos", "--val-fraction", "0.5")
    assert code == 3 and "no class with two different images" in err
