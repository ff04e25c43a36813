"""What is digested is all that matters: what a manifest and its arrays say besides is verified, or refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from fastres.data.engines import open_split
from fastres.data.manifest import digest_of_files, load_manifest, sha256_of
from fastres.machine.errors import DataError


@pytest.fixture
def folder(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "packed")


def change(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def put(folder, name, array):
    """Another array, by somebody who knows the digests."""
    np.save(folder / name, array, allow_pickle=True)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files[name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    change(folder, files=files, data_digest=digest_of_files(files))


def opened(folder):
    return open_split("resident", folder, load_manifest(folder), "val", torch.device("cpu"))


@pytest.mark.fault(43)
def test_names_have_a_digest_that_no_run_depends_on(folder):
    before = load_manifest(folder)
    classes = [{"wnid": c.wnid, "name": c.name} for c in before.classes]
    classes[0]["name"], classes[1]["name"] = classes[1]["name"], classes[0]["name"]
    change(folder, classes=classes)
    with pytest.raises(DataError, match="name_digest does not follow from classes"):
        load_manifest(folder)
    content = json.loads((folder / "manifest.json").read_text())
    del content["name_digest"]  # as packers before wrote it
    (folder / "manifest.json").write_text(json.dumps(content))
    assert load_manifest(folder).content_digest == before.content_digest


@pytest.mark.fault(43)
@pytest.mark.parametrize("kind", ["i1", "u1", "i4", ">i8", "f4", "f8", "c8", "?", "U2", "O"])
def test_labels_of_another_kind(folder, kind):
    put(folder, "val.labels.npy", np.load(folder / "val.labels.npy").astype(kind))
    with pytest.raises(DataError, match=r"val\.labels\.npy: (found labels|no array)"):
        opened(folder)


@pytest.mark.fault(43)
@pytest.mark.parametrize("kind", ["i1", "i4", "f4", "?", "O"])
def test_pixels_of_another_kind(folder, kind):
    put(folder, "val.images.npy", np.load(folder / "val.images.npy").astype(kind))
    with pytest.raises(DataError, match=r"val\.images\.npy: "):
        opened(folder)


@pytest.mark.fault(43)
def test_axes_in_another_order(folder):
    images = np.load(folder / "val.images.npy")
    put(folder, "val.images.npy", np.asfortranarray(images))
    with pytest.raises(DataError, match="its axes are in Fortran's order"):
        opened(folder)
    put(folder, "val.images.npy", np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with pytest.raises(DataError, match=r"expected uint8 \(20, 16, 16, 3\)"):
        opened(folder)


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"format": NaN}', '{"format": 1, "side": Infinity}', '{"format": 1e999}']
    + ['{"format": 1, "format": 1}', '{"format": true}', '{"format": 1.0}', "9" * 5000, "null", "\ufeff{}"],
)
def test_what_is_no_manifest(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="manifest.json"):
        load_manifest(folder)


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    "changes",
    [
        {"side": 16.0},
        {"side": True},
        {"side": "16"},
        {"side": 10**30},
        {"classes": []},
        {"source": []},
        {"versions": None},
    ]
    + [{"classes": [{"wnid": 1, "name": "x"}]}, {"source": {"name": 3}}, {"source": {"selection": {"of": 1}}}],
)
def test_fields_of_another_kind_are_named(folder, changes):
    change(folder, **changes)
    with pytest.raises(DataError, match=rf"incomplete or altered \({next(iter(changes))}.* is .*, expected"):
        load_manifest(folder)
