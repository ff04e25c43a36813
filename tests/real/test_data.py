"""The real Tiny ImageNet through the packer and the three engines, beside a reader that shares no code with them."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastres.data.described import describe, is_tiny_imagenet
from fastres.data.engines import ENGINES, open_split
from fastres.data.manifest import load_manifest
from tests.real.conftest import packed_into
from tests.support.packing import arrays, need

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
CPU = torch.device("cpu")
# of all pixels, split by split, in id order: recorded before the packer turned pictures upright
PIXELS = {
    "train": "8eddabf6b5de8059ff5f11eaf1d0a9d21f9120b0a5dcf2fc9261a30586b52afa",
    "val": "ac9df8dc787e15b6d811cd9e88316e965eb3e37feeccba2a4b3a679dfd175479",
    "test": "a32d1a150a7c10bb015bf7723522c7a679d3caa82abf598f4fa451d458290ef8",
}
CONVERTED = {"train": {"L": 1821}, "val": {"L": 168}, "test": {"L": 189}}


def plain_labels(tree: Path) -> dict[str, str]:
    """Class id by file name, by ten lines that anyone would write."""
    lines = (tree / "val" / "val_annotations.txt").read_text().splitlines()
    labels = {f"val/images/{line.split(chr(9))[0]}": line.split("\t")[1] for line in lines}
    for folder in (tree / "train").iterdir():
        labels |= {f"train/{folder.name}/images/{path.name}": folder.name for path in (folder / "images").iterdir()}
    return labels


def test_counts_are_those_of_the_data_set(packed):
    manifest = load_manifest(packed)
    assert is_tiny_imagenet(manifest) and describe(manifest) == "Tiny ImageNet"
    splits = manifest.splits
    assert {name: entry["count"] for name, entry in splits.items()} == {"train": 100_000, "val": 10_000, "test": 10_000}
    assert {name: entry["pixels"] for name, entry in splits.items()} == PIXELS
    assert {name: entry["converted"] for name, entry in splits.items()} == CONVERTED
    assert splits["train"]["per_class"] == [500] * 200 and splits["val"]["per_class"] == [50] * 200
    assert [splits[name]["grayscale"] for name in ("train", "val", "test")] == [1_821, 168, 189]
    assert [splits[name]["duplicates"] for name in ("train", "val")] == [20, 7]
    assert all(entry["skipped"] == 0 for entry in splits.values())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_thousand_images_are_what_pillow_reads(packed, tree, split):
    wnids = sorted((tree / "wnids.txt").read_text().split())
    images, labels, names = arrays(packed, split)
    truth = plain_labels(tree)
    for row in np.random.default_rng(0).choice(len(names), 1000, replace=False):
        with Image.open(tree / names[row]) as image:
            assert np.array_equal(images[row], np.asarray(image.convert("RGB"))), names[row]
        if split != "test":
            assert wnids[labels[row]] == truth[names[row]]


def test_three_engines_deliver_one_digest(packed):
    manifest, digests = load_manifest(packed), set()
    for engine in ENGINES:
        need(engine)
        split = open_split(engine, packed, manifest, "val", CPU)
        digest = hashlib.sha256()
        for batch in split.batches(np.random.default_rng(0).permutation(len(split)), 500):
            digest.update(batch.images[batch.rows].numpy().tobytes() + batch.labels.numpy().tobytes())
        digests.add(digest.hexdigest())
    assert len(digests) == 1


def test_the_zip_of_the_tree_packs_to_its_digests(packed, tree, tmp_path):
    file = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(tree.parent))
    zipped = load_manifest(packed_into(tmp_path / "packed", file, "--engines", "resident"))
    whole = load_manifest(packed)
    assert zipped.content_digest == whole.content_digest
    assert all(zipped.files[name] == whole.files[name] for name in zipped.files if name.endswith(".npy"))
