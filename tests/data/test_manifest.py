"""fastres/data/manifest.py: what it accepts, and every way in which it refuses."""

import hashlib
import json
import os
from dataclasses import replace

import pytest

from fastres.data import manifest as manifests
from fastres.data.manifest import ClassInfo, Manifest, check_sizes, load_manifest, save_manifest, verify_file
from fastres.machine.errors import DataError, MachineError

CONTENT = {"a.npy": b"0123456789" * 1000, "b.txt": b"x\n"}


@pytest.fixture
def packed(tmp_path):
    """A folder with two files and their manifest."""
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    files = {n: {"bytes": len(d), "sha256": manifests.sha256_of(tmp_path / n)} for n, d in CONTENT.items()}
    classes = (ClassInfo("n01", "cat"), ClassInfo("n02", "bird"))
    save_manifest(
        tmp_path,
        Manifest(
            side=64,
            classes=classes,
            splits={"train": {"count": 7, "labelled": True, "grayscale": 1, "converted": {"L": 1}}},
            files=files,
            data_digest=manifests.digest_of_files(files),
            class_digest=manifests.digest_of_classes(["n01", "n02"]),
            source={"kind": "folder", "name": "x"},
            versions={"python": "3"},
        ),
    )
    return tmp_path


def edit(packed, **changes):
    path = packed / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saved_is_loaded(packed):
    manifest = load_manifest(packed)
    assert (manifest.side, manifest.num_classes, manifest.count("train"), manifest.count("test")) == (64, 2, 7, 0)
    assert manifest.classes[1] == ClassInfo("n02", "bird")
    save_manifest(packed, replace(manifest, side=32))
    assert load_manifest(packed) == replace(manifest, side=32)
    check_sizes(packed, manifest)
    for name in CONTENT:
        verify_file(packed, manifest, name)


def test_digests_are_the_documented_ones(packed):
    lines = "".join(f"{n} {hashlib.sha256(d).hexdigest()}\n" for n, d in sorted(CONTENT.items()))
    assert load_manifest(packed).data_digest == hashlib.sha256(lines.encode()).hexdigest()
    assert load_manifest(packed).class_digest == hashlib.sha256(b"n01\nn02\n").hexdigest()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "not found"),
        ("", "expected JSON"),
        ("\udcff", "expected JSON"),
        ("[1]", "found format 'list', expected 1"),
        ('{"format": 2}', "found format 2, expected 1"),
        ('{"format": 1}', "side is None, expected a whole number"),
    ],
)
def test_unusable_manifest(packed, text, says):
    path = packed / "manifest.json"
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="manifest.json") as caught:
        load_manifest(packed)
    assert says in str(caught.value) and "preprocess/pack.py" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"side": "wide"},
        {"classes": [{"wnid": "n02", "name": "bird"}, {"wnid": "n01", "name": "cat"}]},
        {"classes": 3},
        {"splits": {"train": 5}},
        {"files": {}},
        {"files": {"../a.npy": {"bytes": 1, "sha256": ""}}},
        {"data_digest": "0" * 64},
    ],
)
def test_altered_manifest(packed, changes):
    edit(packed, **changes)
    with pytest.raises(DataError, match="incomplete or altered"):
        load_manifest(packed)


def test_a_name_that_leads_outside(packed):
    files = {"../a.npy": {"bytes": 1, "sha256": "0"}}
    edit(packed, files=files, data_digest=manifests.digest_of_files(files))
    with pytest.raises(DataError, match="leads out of the folder"):
        load_manifest(packed)


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "longer"])
def test_wrong_size(packed, damage):
    manifest, path = load_manifest(packed), packed / "a.npy"
    if damage == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"truncated": data[:-1], "empty": b"", "longer": data + b"x"}[damage])
    for check in (lambda: check_sizes(packed, manifest), lambda: verify_file(packed, manifest, "a.npy")):
        with pytest.raises(DataError, match=r"a\.npy: .*expected 10,000 bytes|a\.npy: .*expected 10,000;"):
            check()
    verify_file(packed, manifest, "b.txt")  # the other file is still good


@pytest.mark.parametrize("position", [0, 4321, 9999])
def test_flipped_bit(packed, position):
    manifest, path = load_manifest(packed), packed / "a.npy"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    check_sizes(packed, manifest)  # cheap and blind to this
    with pytest.raises(DataError, match=r"a\.npy: found sha256 .*expected"):
        verify_file(packed, manifest, "a.npy")


def test_file_that_is_not_listed(packed):
    with pytest.raises(DataError, match=r"c\.npy: not in the manifest, which lists a\.npy, b\.txt"):
        verify_file(packed, load_manifest(packed), "c.npy")


def test_failed_save_leaves_the_old_one(packed, monkeypatch):
    before = (packed / "manifest.json").read_bytes()

    def fail(*_):
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(MachineError, match="disk gone"):
        save_manifest(packed, replace(load_manifest(packed), side=8))
    assert (packed / "manifest.json").read_bytes() == before
    assert sorted(p.name for p in packed.iterdir()) == ["a.npy", "b.txt", "manifest.json"]
