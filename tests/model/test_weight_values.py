"""Weights with values, kinds of tensors or metadata that no network has: refused by name where they are read."""

import os
from pathlib import Path

import pytest
import torch

from fastres.machine.errors import DataError
from fastres.model.metadata import digest_of, parse_metadata, read_metadata
from fastres.model.network import Architecture, build
from fastres.model.reading import check_values, read_weights
from fastres.model.weights import network_from, save_weights
from tests.model.test_reading import same, stored


@pytest.fixture(scope="module")
def state():
    return build(Architecture("resnet18", 8, 5)).state_dict()


@pytest.mark.fault(35)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer4.1.bn2.running_var", "layer4.1.bn2.running_mean", "conv1.weight", "fc.bias"])
@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint", "half"])
def test_what_is_not_finite_is_refused_by_name(tmp_path, state, name, value, form):
    bad = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in state.items()}
    bad[name].view(-1)[-1] = value
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in bad.items()}, path := tmp_path / "w.safetensors")
    elif form == "half":
        path = stored(tmp_path, {k: v.half() if v.is_floating_point() else v for k, v in bad.items()})
    else:
        path = stored(tmp_path, {"network": bad} if form == "checkpoint" else bad)
    with pytest.raises(DataError, match=f"1 value of {name} is not finite"):
        read_weights(path)


@pytest.mark.fault(35)
def test_values_that_no_weights_have(state):
    for name, value, words in (
        ("fc.weight", torch.ones(5, 64, dtype=torch.int8), "fc.weight is int8"),
        ("fc.bias", torch.ones(5, dtype=torch.bool), "fc.bias is bool"),
        ("fc.bias", torch.ones(5, dtype=torch.complex64), "fc.bias is complex64"),
        ("fc.weight", torch.ones(5, 64).to_sparse(), "sparse_coo"),
        ("bn1.running_var", torch.full((8,), -1.0), "bn1.running_var has values below 0"),
        ("bn1.weight", torch.tensor([float("nan")] * 3), "3 values of bn1.weight are not finite"),
    ):
        with pytest.raises(DataError, match=words):
            check_values({**state, name: value}, "w")
        with pytest.raises(DataError, match=words if value.shape == state[name].shape else "shape"):
            network_from({**state, name: value}, "w")
    check_values({**state, "bn1.running_var": torch.full((8,), -1e-6)}, "a variance of 0, as Torch7's files give it")


def test_metadata_is_valid_json(tmp_path, state):
    import json

    from safetensors import safe_open

    network = network_from(state, "w")
    (tmp_path / "w.safetensors").write_bytes(save_weights(network, {"side": 64, "loss": float("nan")}))
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        text = file.metadata()["fastres"]
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {"side": 64, "loss": None}


@pytest.mark.fault(35)
@pytest.mark.filterwarnings("ignore:.*quantize")
@pytest.mark.filterwarnings("ignore:.*Quantize")
@pytest.mark.filterwarnings("ignore:.*TypedStorage")
def test_kinds_of_tensors_that_files_may_hold(tmp_path, state):
    """Refused where they are read, by name; half precision is taken, and its digest is of its own bytes."""
    flat = torch.ones(5, 64)
    for value in (
        *(flat.to(kind) for kind in (torch.int8, torch.uint8, torch.bool, torch.int64, torch.complex64)),
        *(flat.to_sparse(), torch.quantize_per_tensor(flat, 0.1, 0, torch.qint8), torch.empty(5, 64, device="meta")),
        torch.ones(1).expand(5, 64),
    ):
        with pytest.raises(DataError, match=r"fc\.weight is|w\.pth: "):
            read_weights(stored(tmp_path, {**state, "fc.weight": value}))
    for kind in (torch.float16, torch.bfloat16):
        halves = {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}
        assert same(read_weights(stored(tmp_path, halves)), halves)
        assert digest_of(halves) != digest_of(state)


@pytest.mark.fault(35)
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"side": NaN}', '{"side": 64, "side": 32}', '{"side": 64.0}', '{"side": 1e999}', "[]", "", "nul"]
    + ['{"side": 80000000}', '{"side": 8192, "upscale": 2}', '{"classes": [["a"]]}', '{"upscale": true}'],
)
def test_metadata_of_another_kind(text):
    with pytest.raises(DataError, match="w.safetensors: its metadata"):
        parse_metadata(text, "w.safetensors")


def test_no_weights_file_stays_mapped(tmp_path, state):
    """A mapped file that is cut while its tensors are in use ends the process without a word."""
    network = network_from(state, "w")
    path = tmp_path / "w.safetensors"
    path.write_bytes(save_weights(network, {"side": 64}))
    stored(tmp_path, state)
    found = [read_weights(path), read_weights(tmp_path / "w.pth")]
    assert read_metadata(path) == {"side": 64}
    for file in (path, tmp_path / "w.pth"):
        assert str(file) not in Path("/proc/self/maps").read_text()
        os.truncate(file, 100)
    assert all(same(tensors, network.state_dict()) for tensors in found)


@pytest.mark.fault(35)
@pytest.mark.parametrize(
    "head", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b"{", b"\x02" + bytes(7) + b"\xff\xfe"]
)
def test_a_damaged_header_is_one_sentence(tmp_path, head):
    (tmp_path / "w.safetensors").write_bytes(head)
    for read in (read_metadata, read_weights):
        with pytest.raises(DataError, match=r"w.safetensors: not readable \(.*\); get the file again"):
            read(tmp_path / "w.safetensors")
