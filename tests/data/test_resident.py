"""The resident engine: what was asked for, in that order, once; and nothing that was not packed."""

import shutil

import numpy as np
import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.errors import DataError

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 7, 40, 20_000])
def test_every_id_once_in_order_with_its_pixels_and_label(packed, batch_size):
    data = Resident(packed, load_manifest(packed), "train", CPU)
    pixels, labels = np.load(packed / "train.images.npy"), np.load(packed / "train.labels.npy")
    order = np.random.default_rng(0).permutation(40)
    batches = list(data.batches(order, batch_size))
    assert torch.cat([b.ids for b in batches]).tolist() == order.tolist()
    assert torch.cat([b.labels for b in batches]).tolist() == labels[order].tolist()
    assert np.array_equal(torch.cat([b.images[b.rows] for b in batches]).numpy(), pixels[order])
    assert {len(b.ids) for b in batches[:-1]} <= {batch_size}  # only the last may be smaller


def test_pixels_stay_where_they_are(packed):
    data = Resident(packed, load_manifest(packed), "train", CPU)
    assert {b.images.data_ptr() for b in data.batches(np.arange(40), 8)} == {data.images.data_ptr()}


def test_unlabelled_split(packed):
    data = Resident(packed, load_manifest(packed), "test", CPU)
    assert len(data) == 6 and set(data.labels.tolist()) == {-1}


@pytest.mark.fault(14)
@pytest.mark.parametrize("name", ["train.images.npy", "train.labels.npy"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing", "foreign"])
def test_damage_is_refused(packed, tmp_path, name, damage):
    folder = shutil.copytree(packed, tmp_path / "packed")
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 4
    elif damage == "truncated":
        del content[-100:]
    elif damage == "empty":
        content.clear()
    elif damage == "foreign":
        content = bytearray((packed / name.replace("train", "val")).read_bytes())
    path.write_bytes(content)
    if damage == "missing":
        path.unlink()
    with pytest.raises(DataError, match=rf"{name}: .*pack.py"):
        Resident(folder, load_manifest(folder), "train", CPU)


def test_a_split_that_was_not_packed(packed):
    with pytest.raises(DataError, match="no extra split"):
        Resident(packed, load_manifest(packed), "extra", CPU)
