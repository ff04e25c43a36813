"""preprocess/pack.py: what it packs is what the tree holds, whatever its layout and however it is called.

Trees come from tests/support/trees.py, expected pixels from Pillow.
"""

import hashlib
import json
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastres.data.manifest import load_manifest
from preprocess import decode_pool
from tests.support.packing import (
    COMMAND,
    arrays,
    names_in,
    pixels_and_labels,
    verify_all,
)
from tests.support.trees import ODDITIES, picture, read_image, wnid, write_image, write_tree, zip_tree


@pytest.mark.fault(6)
def test_every_row_is_the_image_that_its_line_names(tree, packer, tmp_path):
    root, truth = tree
    code, out, err = packer("--source", root)
    assert code == 0, err
    manifest = verify_all(tmp_path / "packed")
    seen = []
    for split, labelled in (("train", True), ("val", True), ("test", False)):
        images, labels, files = arrays(tmp_path / "packed", split)
        assert (images.dtype, images.shape) == (np.uint8, (len(files), 16, 16, 3))
        fingerprints = b"".join(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
        expected = {"count": len(files), "labelled": labelled, "skipped": 0, **ODDITIES[split]}
        expected["pixels"] = hashlib.sha256(fingerprints).hexdigest()
        per_class = [6] * 4 if split == "train" else [3] * 4
        known = {"duplicates": 0, "per_class": per_class} if labelled else {}
        assert manifest.splits[split] == expected | known
        assert labelled == (labels is not None)
        for row, path in enumerate(files):
            np.testing.assert_array_equal(images[row], read_image(root / path), err_msg=path)
            if labelled:
                assert manifest.classes[labels[row]].wnid == truth[path]
        seen += files
    assert sorted(seen) == sorted(truth)
    assert [c.wnid for c in manifest.classes] == [wnid(k) for k in range(4)]
    assert [c.name for c in manifest.classes] == [f"thing {k}" for k in range(4)]
    assert "val" in out and "packed" in out.splitlines()[-1]


def test_order_of_rows_is_class_then_number(tmp_path, packer):
    write_tree(tmp_path / "tiny", classes=2, train=12, val=6, test=12)
    assert packer("--source", tmp_path / "tiny")[0] == 0
    train, val, test = (arrays(tmp_path / "packed", s)[2] for s in ("train", "val", "test"))
    assert train == [f"train/{w}/images/{w}_{i}.JPEG" for w in (wnid(0), wnid(1)) for i in range(12)]
    assert val == [f"val/images/val_{i}.JPEG" for i in range(12)]
    assert test == [f"test/images/test_{i}.JPEG" for i in range(12)]
    assert arrays(tmp_path / "packed", "train")[1].tolist() == [0] * 12 + [1] * 12


LAYOUTS = {  # fault 5 and 9: what the same data may look like
    "sorted": {"val_layout": "sorted"},
    "bare": {"val_layout": "bare"},
    "inner": {"val_layout": "inner"},
    "crlf": {"newline": "\r\n"},
    "nested once": {},
    "nested twice": {},
    "zip": {},
    "zip without a folder": {},
    "zip nested twice": {},
}


@pytest.mark.fault(5)
@pytest.mark.fault(9)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_same_data(tree, packer, tmp_path, name):
    assert packer("--source", tree[0])[0] == 0
    nested = {"nested once": "a", "nested twice": "a/tiny-imagenet-200"}.get(name, "")
    other = tmp_path / "other" / nested
    write_tree(other, **LAYOUTS[name])
    source = tmp_path / "other"
    if name.startswith("zip"):
        prefix = {"zip": "tiny-imagenet-200/", "zip nested twice": "a/b/"}.get(name, "")
        source = zip_tree(other, tmp_path / "other.zip", prefix)
    code, _, err = packer("--source", source, out=tmp_path / "again")
    assert code == 0, err
    assert pixels_and_labels(tmp_path / "again") == pixels_and_labels(tmp_path / "packed")
    one, two = load_manifest(tmp_path / "packed"), load_manifest(tmp_path / "again")
    assert (one.classes, one.class_digest, one.splits) == (two.classes, two.class_digest, two.splits)
    if "val_layout" not in LAYOUTS[name]:  # the same paths, too
        assert one.data_digest == two.data_digest


@pytest.mark.fault(10)
def test_order_of_wnids_does_not_matter(tree, packer, tmp_path):  # fault 10
    root, _ = tree
    assert packer("--source", root)[0] == 0
    lines = (root / "wnids.txt").read_text().split()
    assert lines != sorted(lines)
    (root / "wnids.txt").write_text("\n".join(reversed(lines)))
    assert packer("--source", root, out=tmp_path / "again")[0] == 0
    assert load_manifest(tmp_path / "again").data_digest == load_manifest(tmp_path / "packed").data_digest
    assert load_manifest(tmp_path / "again").class_digest == load_manifest(tmp_path / "packed").class_digest


@pytest.mark.slow
@pytest.mark.fault(13)
def test_workers_do_not_change_a_byte(tree, tmp_path, packer, monkeypatch):  # fault 13
    monkeypatch.setattr(decode_pool, "CHUNK_BYTES", 2 * 16 * 16 * 3)  # two images a chunk: 24 chunks
    write_image(tree[0] / f"train/{wnid(3)}/images/{wnid(3)}_2.JPEG", picture(24, 0))  # a bad one shifts the rows
    digests = set()
    for workers in (1, 16):
        out = tmp_path / f"packed{workers}"
        code, _, err = packer("--source", tree[0], "--workers", workers, "--on-bad", "skip", out=out)
        assert code == 0, err
        digests.add(verify_all(out).data_digest)
    assert len(digests) == 1


@pytest.mark.slow
def test_many_classes_from_a_foreign_folder_and_uninstalled(tmp_path):
    """As a user does: another working directory, the source found by its name, the default --out."""
    write_tree(tmp_path / "tiny-imagenet-200", classes=30, side=64, train=2, val=1, test=3)
    done = subprocess.run([*COMMAND, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["status"], report["side"], report["classes"]) == ("packed", 64, 30)
    assert [report["splits"][s]["count"] for s in ("train", "val", "test")] == [60, 30, 3]
    assert report["data_digest"] == verify_all(tmp_path / "packed").data_digest
    assert names_in(tmp_path) == ["packed", "tiny-imagenet-200"]
    assert names_in(tmp_path / "packed")[:3] == [".pack-state.json", ".verified.json", "manifest.json"]


def test_without_test_and_words(tree, packer, tmp_path):
    shutil.rmtree(tree[0] / "test")
    (tree[0] / "words.txt").unlink()
    code, out, _ = packer("--source", tree[0])
    manifest = verify_all(tmp_path / "packed")
    assert code == 0 and "absent from this data set" in out
    assert (manifest.count("test"), "test" in manifest.splits) == (0, False)
    assert manifest.classes[1].name == wnid(1)


def test_litter_of_other_systems_is_ignored(tree, packer, tmp_path):
    assert packer("--source", tree[0])[0] == 0
    (tree[0] / f"train/{wnid(0)}/images/._{wnid(0)}_0.JPEG").write_bytes(b"finder")
    (tree[0] / "val/images/.DS_Store").write_bytes(b"finder")
    (tree[0] / "val/images/Thumbs.db").write_bytes(b"explorer")
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/train/x.JPEG", b"finder")
    for source in (tree[0], archive):
        assert packer("--source", source, out=tmp_path / "again")[0] == 0
        assert load_manifest(tmp_path / "again").data_digest == load_manifest(tmp_path / "packed").data_digest


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1", "P with transparency"])
def test_other_modes_become_rgb(tree, packer, tmp_path, mode):
    path = tree[0] / "test/images/test_3.JPEG"
    image = Image.fromarray(picture(16, 5)).convert(mode.split()[0])
    extra = {"transparency": bytes(range(0, 250, 10))} if "with" in mode else {}
    image.save(path, "PNG", **extra)
    assert packer("--source", tree[0])[0] == 0
    row = arrays(tmp_path / "packed", "test")[0][3]
    with Image.open(path) as saved:  # on white, as alpha_composite has it
        layer = saved.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    assert np.abs(row.astype(int) - np.asarray(expected)).max() <= 1
    entry = load_manifest(tmp_path / "packed").splits["test"]
    assert entry["converted"][mode.split()[0]] >= 1
    assert entry["grayscale"] == ODDITIES["test"]["grayscale"] + (mode in ("LA", "1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "nowhere"], "found nothing there"),
        (["--engines", "resident,tape"], "found 'tape', expected some of"),
        (["--workers", "0"], "expected a whole number"),
        (["--workers", "two"], "expected a whole number"),
        (["--source", ".", "--small-world"], "not allowed with"),
        (["--small-world", "both"], "invalid choice"),
    ],
)
def test_usage(tmp_path, arguments, says):
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_without_a_network(tmp_path):
    closed = os.environ | dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9") | {"no_proxy": ""}
    done = subprocess.run(COMMAND, cwd=tmp_path, env=closed, capture_output=True, text=True)
    assert done.returncode == 4 and "Traceback" not in done.stderr
    for says in ("tiny-imagenet-200.zip", "248,100,043", "90528d7ca1a48142e341f4ef8d21d0de", "--small-world"):
        assert says in done.stderr
    assert names_in(tmp_path) == []


def test_out_is_a_file(tree, packer, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "packed"):
        code, _, err = packer("--source", tree[0], out=out)
        assert code == 2 and "expected a folder" in err
    assert (tmp_path / "file").read_text() == "mine"
