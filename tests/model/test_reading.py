"""One network, stored as other programs store it: read the same, or refused by the name of what is missing or wrong."""

import argparse

import pytest
import torch

from fastres.machine import console
from fastres.machine.errors import DataError, MachineError
from fastres.model.network import Architecture, build
from fastres.model.reading import read_weights, split_key
from fastres.model.weights import initial_network, network_from
from fastres.schedules.types import Schedule, Stage
from tests.model.test_model import Runs

SLIM = Schedule(name="slim", width=8, weights=None, stages=(Stage(name="all", epochs=1, train=("*",), upscale=4),))
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "encoder.body.")


@pytest.fixture(scope="module")
def state():
    return build(Architecture("resnet18", 8, 5)).state_dict()


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(console, "_said", set())


def stored(tmp_path, content, name="w.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def same(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.fault(34)
@pytest.mark.parametrize("outer", ["", *PREFIXES])
@pytest.mark.parametrize("inner", ["", *PREFIXES])
def test_any_prefix_in_any_nesting(tmp_path, state, outer, inner, capsys):
    assert same(read_weights(stored(tmp_path, prefixed(state, outer + inner))), state)
    assert capsys.readouterr().err == ""


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    "way", ["state_dict", "model", "model_state_dict", "net", "state_dict_ema", "model_ema", "model.state_dict"]
)
def test_every_container_is_opened_and_said(tmp_path, state, way, capsys):
    content = prefixed(state, "module.")
    for key in reversed(way.split(".")):
        content = {"epoch": 3, key: content, "args": argparse.Namespace(lr=0.1)}
    assert same(read_weights(stored(tmp_path, content)), state)
    assert f"took {way}\n" in capsys.readouterr().err


@pytest.mark.fault(34)
def test_of_two_networks_one_is_taken_and_the_other_can_be(tmp_path, state, capsys):
    other = {name: value + 1 for name, value in state.items()}
    path = stored(tmp_path, {"state_dict": state, "state_dict_ema": other, "optimizer": {"state": {}}})
    assert same(read_weights(path), state)
    assert f"took state_dict, not state_dict_ema; to choose: {path}::state_dict_ema" in capsys.readouterr().err
    assert same(read_weights(f"{path}::state_dict_ema"), other)
    loaded = initial_network(Schedule(**{**vars(SLIM), "weights": f"{path}::state_dict_ema"}), 5).state_dict()
    assert same(loaded, other)
    with pytest.raises(DataError, match="nothing under 'ema', expected state_dict or state_dict_ema"):
        read_weights(f"{path}::ema")


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    "way", [["weights"], ["ema"], ["student"], ["result", "params"], ["checkpoint", "model_state"]]
)
def test_the_only_network_under_any_name_is_taken_and_said(tmp_path, state, way, capsys):
    stored = state
    for key in reversed(way):
        stored = {"epoch": 3, "optimizer": {"lr": 0.1}, key: stored}
    torch.save(stored, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth"), state)
    assert f"took {'.'.join(way)}" in capsys.readouterr().err


@pytest.mark.fault(34)
def test_several_networks_under_unknown_names_must_be_chosen_from(tmp_path, state):
    other = {name: value * 0 for name, value in state.items()}
    torch.save({"teacher": other, "student": state}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="networks under teacher, student; choose .*w.pth::teacher or .*w.pth::student"):
        read_weights(tmp_path / "w.pth")
    assert same(read_weights(f"{tmp_path / 'w.pth'}::student"), state)


@pytest.mark.fault(34)
def test_a_dict_that_holds_itself_is_one_sentence(tmp_path):
    for key in ("state_dict", "loop"):
        stored = {"epoch": 3}
        stored[key] = stored
        torch.save(stored, tmp_path / "w.pth")
        with pytest.raises(DataError, match="found no network in it"):
            read_weights(tmp_path / "w.pth")


@pytest.mark.fault(34)
def test_two_networks_in_one_dict_must_be_chosen_from(tmp_path, state):
    other = {name: value + 1 for name, value in state.items()}
    path = stored(tmp_path, {**prefixed(state, "student."), **prefixed(other, "teacher.")})
    with pytest.raises(DataError, match="holds 2 networks .*choose .*::student or .*::teacher"):
        read_weights(path)
    assert same(read_weights(f"{path}::teacher"), other)


def test_what_is_beside_the_network_is_left_out_and_said(tmp_path, state, capsys):
    content = {"state_dict": {**prefixed(state, "model."), "loss.weight": torch.ones(5)}}
    assert same(read_weights(stored(tmp_path, content)), state)
    assert "left out what is not under model. (loss.weight)" in capsys.readouterr().err


def test_a_file_whose_name_has_colons_is_that_file(tmp_path, state):
    path = stored(tmp_path, state, "w::net.pth")
    assert same(read_weights(path), state) and split_key(path) == (path, None)
    assert split_key("gone.pth::net")[1] == "net"
    with pytest.raises(MachineError, match="no such file"):
        read_weights("gone.pth::net")


@pytest.mark.fault(34)
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("head", [{}, {"fc.1.weight": torch.zeros(5, 64), "fc.1.bias": torch.zeros(5)}])
def test_a_missing_head_is_named(tmp_path, state, prefix, head):
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    with pytest.raises(DataError, match="no fc.weight, expected a torchvision resnet"):
        network_from(read_weights(stored(tmp_path, prefixed({**body, **head}, prefix))), "w.pth")


@pytest.mark.fault(34)
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "conv1.weight", "layer4.0.bn1.bias"])
def test_a_missing_layer_is_named(tmp_path, state, name, prefix):
    without = {key: value for key, value in state.items() if key != name}
    with pytest.raises(DataError, match=f"w.pth: (no|1 missing, first) {name}[,;]"):
        network_from(read_weights(stored(tmp_path, prefixed(without, prefix))), "w.pth")


@pytest.mark.fault(34)
@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {"epoch": 3}}, {1: torch.ones(1)}, 7])
def test_no_state_dict_is_one_sentence(tmp_path, content):
    with pytest.raises(DataError, match="found no (state dict|network in it)"):
        read_weights(stored(tmp_path, content))


@pytest.mark.fault(25)
def test_code_anywhere_inside_is_refused_and_not_run(tmp_path, state):
    for content in (
        {"state_dict": state, "extra": Runs(tmp_path / "ran")},
        argparse.Namespace(x=Runs(tmp_path / "ran")),
    ):
        with pytest.raises(DataError, match="not loaded"):
            read_weights(stored(tmp_path, content))
    assert not (tmp_path / "ran").exists()
