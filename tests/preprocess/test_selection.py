"""pack.py --classes and --per-class: a slice of the sorted classes, the first images of each by file number."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fastres.data import described
from fastres.data.described import describe, is_own, is_tiny_imagenet
from fastres.data.manifest import load_manifest
from preprocess.selection import Selection, slice_of
from tests.support.packing import arrays
from tests.support.trees import read_image, wnid, write_tree


def names_of(out, split):
    return arrays(out, split)[2]


def test_every_second_class_is_labelled_anew(tmp_path, packer):
    truth = write_tree(tmp_path / "tiny", classes=7, train=3, val=2)
    code, said, _ = packer("--source", tmp_path / "tiny", "--classes", "1::2")
    assert code == 0 and "3 of its 7 classes, 16 pixels" in said
    manifest = load_manifest(packer.out)
    assert manifest.wnids == [wnid(1), wnid(3), wnid(5)]
    for split, count in (("train", 9), ("val", 6)):
        images, labels, names = arrays(packer.out, split)
        assert len(names) == count and manifest.count(split) == count
        assert [manifest.wnids[label] for label in labels] == [truth[name] for name in names]
        for image, name in zip(images, names, strict=True):
            assert np.array_equal(image, read_image(tmp_path / "tiny" / name))
    assert "test" not in manifest.splits, "its images may be of any class"
    assert "left out: --classes" in said and "absent" not in said
    code, _, err = packer("--source", tmp_path / "tiny")
    assert code == 0 and "classes was 1::2, is None" in err and "test" in load_manifest(packer.out).splits


def test_the_first_images_of_each_class_by_number(tmp_path, packer):
    write_tree(tmp_path / "tiny", classes=3, train=12, val=4, test=5)
    code, _, _ = packer("--source", tmp_path / "tiny", "--per-class", "10,2")
    assert code == 0
    manifest, names = load_manifest(packer.out), names_of(packer.out, "train")
    assert names == [f"train/{wnid(k)}/images/{wnid(k)}_{i}.JPEG" for k in range(3) for i in range(10)]
    labels = arrays(packer.out, "val")[1]
    assert np.bincount(labels).tolist() == [2, 2, 2] and manifest.count("test") == 5
    assert describe(manifest) == "tiny, 3 classes, 10 training and 2 validation images a class, 16 pixels"


def test_fewer_images_than_asked_for_are_not_said_to_be_there(tmp_path, packer):
    write_tree(tmp_path / "tiny", classes=3, train=6, val=4)
    assert packer("--source", tmp_path / "tiny", "--per-class", "100,4")[0] == 0
    said = describe(load_manifest(packer.out))
    assert said == "tiny, 3 classes, up to 100 training and 4 validation images a class, 16 pixels"


def test_both_and_a_side_compose_and_are_in_the_manifest(tmp_path, packer):
    write_tree(tmp_path / "tiny", classes=6, side=32, train=5, val=3)
    arguments = ("--source", tmp_path / "tiny", "--classes", "0:4", "--per-class", "2", "--side", "8")
    assert packer(*arguments)[0] == 0
    manifest = load_manifest(packer.out)
    assert (manifest.side, manifest.count("train"), manifest.count("val")) == (8, 8, 12)
    chosen = manifest.source["selection"]
    assert (chosen["classes"], chosen["per_class"], chosen["of"]["classes"]) == ("0:4", [2, None], 6)
    code, said, _ = packer(*arguments, "--json")
    assert code == 0 and json.loads(said)["status"] == "up to date"
    code, said, _ = packer(*arguments[:-2], "--json")
    assert code == 0 and json.loads(said)["status"] == "packed", "another side is another packing"


@pytest.mark.parametrize("wrong", ["3", "a:b", "::0", "1:2:3:4", ""])
def test_what_is_no_slice_is_a_usage_error(tree, packer, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        packer("--source", tree[0], "--classes", wrong)
    assert stop.value.code == 2 and "--classes" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["0", "x", "5,", "5,0", "1,2,3"])
def test_what_is_no_count_is_a_usage_error(tree, packer, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        packer("--source", tree[0], "--per-class", wrong)
    assert stop.value.code == 2 and "--per-class" in capsys.readouterr().err


def test_a_slice_of_one_class_is_refused(tree, packer):
    code, _, said = packer("--source", tree[0], "--classes", "0:1")
    assert code == 2 and "takes 1 of 4 classes, expected 2 or more" in said


def test_slices_are_pythons():
    for text in ("0::2", "1::2", "5:", ":3", "::-1", "-4:-1"):
        assert list(range(10))[slice_of(text)] == eval(f"list(range(10))[{text}]")
    assert not Selection() and Selection(classes="0::2") and Selection(per_class=(1, None))


def test_only_all_of_it_is_tiny_imagenet(tmp_path, packer, monkeypatch):
    """Its own size and all its classes and images; a part is a part of Tiny ImageNet by name."""
    write_tree(tmp_path / "tiny", classes=4, side=64, train=6, val=3, test=0)
    assert packer("--source", tmp_path / "tiny")[0] == 0
    whole = load_manifest(packer.out)
    assert is_own(whole) and describe(whole) == "tiny, 4 classes, 64 pixels"
    named = replace(whole, source={**whole.source, "name": "Tiny ImageNet"})
    assert is_own(named) and describe(named) == "the folder Tiny ImageNet, 4 classes, 64 pixels"
    monkeypatch.setattr(described, "TINY_IMAGENET", whole.class_digest)
    assert not is_tiny_imagenet(whole), "too few images"
    monkeypatch.setattr(described, "TINY_IMAGENET_COUNTS", {"train": 24, "val": 12})
    assert is_tiny_imagenet(whole) and describe(whole) == "Tiny ImageNet"
    assert packer("--source", tmp_path / "tiny", "--classes", "0::2", "--side", "16")[0] == 0
    part = load_manifest(packer.out)
    assert not is_tiny_imagenet(part) and not is_own(part) and not is_own(whole)
    assert describe(part) == "Tiny ImageNet, 2 of its 4 classes, 16 pixels"
