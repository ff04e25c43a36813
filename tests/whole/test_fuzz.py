"""Damaged files, by seeded chance: each ends in a result or in a fault of ours, and in nothing else."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import torch

from fastres.data.described import describe
from fastres.data.engines import open_split
from fastres.data.labels import read_labels
from fastres.data.manifest import digest_of_classes, digest_of_files, load_manifest, sha256_of
from fastres.machine import console
from fastres.model.card import card_of
from fastres.model.conditions import NOTHING, completed
from fastres.model.network import Architecture, build
from fastres.model.network import describe as describe_network
from fastres.model.target import read_model
from fastres.model.weights import network_from, save_weights
from tests.support.fuzz import SECONDS, altered, bytes_altered, survives, tries

# ---- packed folders


@pytest.mark.fault(48)
@pytest.mark.parametrize("seconds", SECONDS)
def test_manifests(packed, tmp_path, seconds):
    folder = tmp_path / "packed"
    shutil.copytree(packed, folder)
    whole = json.loads((folder / "manifest.json").read_text())

    def read():
        manifest = load_manifest(folder)
        describe(manifest)
        str(manifest.content_digest)
        for split in manifest.splits:
            open_split("resident", folder, manifest, split, torch.device("cpu"))

    assert survives("whole", read)
    for chance, what in tries(seconds, "manifest"):
        content = altered(whole, chance)
        if isinstance(content, dict) and chance.random() < 0.5:  # by somebody who knows the digests
            with contextlib.suppress(Exception):
                content["data_digest"] = digest_of_files(content["files"])
                content["class_digest"] = digest_of_classes(c["wnid"] for c in content["classes"])
        text = json.dumps(content).encode()
        if chance.random() < 0.2:
            text = bytes_altered(text, chance)
        (folder / "manifest.json").write_bytes(text)
        survives(what, read)
    for text in (b"[" * 100_000, b'{"format": 1, "format": 1}', b"\xff", b"", b'{"a":' * 50_000, b"1" * 5000):
        (folder / "manifest.json").write_bytes(text)
        assert not survives(text[:20], read)


@pytest.mark.fault(48)
@pytest.mark.parametrize("seconds", SECONDS)
def test_arrays(packed, tmp_path, seconds):
    """Arrays of any kind whose digests are in the manifest: they are read as the packer writes them or not at all."""
    folder = tmp_path / "packed"
    shutil.copytree(packed, folder)
    whole = json.loads((folder / "manifest.json").read_text())
    files = {name: np.load(folder / name) for name in ("val.labels.npy", "val.images.npy")}
    manifest = load_manifest(folder)

    def read():
        return open_split("resident", folder, load_manifest(folder), "val", torch.device("cpu"))

    expected = {name: array.copy() for name, array in files.items()}
    for chance, what in tries(seconds, "array"):
        name = chance.choice(list(files))
        array, file = files[name], io.BytesIO()
        kind = chance.choice(("u1", "i1", "i4", "i8", ">i8", "f4", "f8", "c8", "b1", "O", "U3", "M8[s]", "i4,i4"))
        with contextlib.suppress(ValueError, TypeError), np.errstate(all="ignore"):
            array = array.astype(kind) if chance.random() < 0.7 else array
            array = chance.choice((array, array.T, array[:-1], array[None], np.asfortranarray(array), array[:0]))
        np.save(file, array, allow_pickle=True)
        data = bytes_altered(file.getvalue(), chance) if chance.random() < 0.4 else file.getvalue()
        (folder / name).write_bytes(data)
        entry = {"bytes": len(data), "sha256": sha256_of(folder / name)}
        content = {**whole, "files": {**whole["files"], name: entry}}
        content["data_digest"] = digest_of_files(content["files"])
        (folder / "manifest.json").write_text(json.dumps(content))
        if survives(what, read):
            assert np.array_equal(read().labels, expected["val.labels.npy"]) or name == "val.labels.npy"
            assert read().labels.max() < len(whole["classes"]) and len(read()) == len(expected["val.images.npy"])
        (folder / name).write_bytes((packed / name).read_bytes())
    assert read_labels(packed, manifest, "val").dtype == np.int64


# ---- weights


def other_tensor(value, chance):
    kinds = (
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.complex64,
    )
    how = chance.randrange(9)
    if how == 0:
        return value.to(chance.choice(kinds))
    if how == 1:
        return value.float().reshape(-1).to_sparse()
    if how == 2:
        return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)
    if how == 3:
        return value.reshape(-1)[:-1] if value.dim() else value.reshape(1)
    if how == 4:
        return torch.full_like(value.float(), chance.choice((float("nan"), float("inf"), -1.0, 1e38)))
    if how == 5:
        return torch.zeros(1).expand(100_000, 100_000, 100)
    if how == 6:
        return torch.empty(value.shape, device="meta")
    if how == 7:
        return chance.choice((None, "text", 3, [value], {"a": value}, np.float64(3).item()))
    return value.unsqueeze(0)


@pytest.mark.fault(48)
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.filterwarnings("ignore")
def test_weights(tmp_path, seconds, monkeypatch):
    monkeypatch.setattr(console, "_said", set())
    network = build(Architecture("resnet18", 8, 4))
    facts = {"side": 16, "upscale": 4, "convention": "torchvision", "classes": [[f"n{i}", f"c{i}"] for i in range(4)]}
    state, safe, plain = network.state_dict(), tmp_path / "w.safetensors", tmp_path / "w.pth"

    def read(path):
        model = read_model(path)
        network_from(model.state, model.source)
        card_of(completed(model.metadata, NOTHING, path), describe_network(model.state), path)

    for chance, what in tries(seconds, "weights"):
        name, how = chance.choice(list(state)), chance.randrange(4)
        path = safe if how < 2 else plain
        if how == 0:
            path.write_bytes(save_weights(network, altered(facts, chance)))
        elif how == 1:
            path.write_bytes(bytes_altered(save_weights(network, facts), chance))
        else:
            content = {**state, name: other_tensor(state[name], chance)}
            if chance.random() < 0.2:
                content[chance.choice(("x", "model", "state_dict", "module.conv1.weight"))] = content.pop(name)
            content = {"network": content, "metadata": altered(facts, chance)} if chance.random() < 0.3 else content
            torch.save(content, path)
            if how == 3:
                path.write_bytes(bytes_altered(path.read_bytes(), chance))
        survives(what, lambda path=path: read(path))
