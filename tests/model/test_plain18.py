"""plain18: resnet18 without its shortcuts."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fastres.machine.errors import DataError, UsageError
from fastres.model.fold import StageNetwork
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.named import arch_of
from fastres.model.network import Architecture, build, describe
from fastres.model.weights import initial_network, load
from fastres.schedules import SCHEDULES
from fastres.schedules.types import Stage
from fastres.stage.rehearsal import rehearse


def test_plain18_is_resnet18_without_what_it_adds():
    """Against its layers by hand; known by its keys alone, and by nothing that a net with shortcuts has."""
    torch.manual_seed(0)
    network = build(Architecture("plain18", 8, 5)).eval()
    x = torch.randn(2, 3, 64, 64)
    y = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    for layer in (1, 2, 3, 4):
        for block in getattr(network, f"layer{layer}"):
            for i in (1, 2):
                y = getattr(block, f"bn{i}")(getattr(block, f"conv{i}")(y)).relu()
    torch.testing.assert_close(network(x), network.fc(y.mean((2, 3))))
    keys, residual = set(network.state_dict()), set(build(Architecture("resnet18", 8, 5)).state_dict())
    assert keys - residual == {"no_shortcuts"} and all("downsample" in key for key in residual - keys)
    assert describe(network.state_dict()) == Architecture("plain18", 8, 5)
    without = {key: value for key, value in network.state_dict().items() if key != "no_shortcuts"}
    with pytest.raises(DataError, match="missing"):
        load(build(Architecture("resnet18", 8, 5)), without, "w")


@pytest.mark.parametrize("inference", [True, False])
def test_its_fast_form_is_the_same_function(inference):
    torch.manual_seed(0)
    network = build(Architecture("plain18", 8, 5)).double()
    network.train(not inference)
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(StageNetwork(network, torch.float64, inference=inference)(x), network(x))


@pytest.mark.parametrize("patterns", [("*",), ("fc.*",), ("layer3.*", "fc.*")])
def test_its_fast_form_has_the_same_gradients(patterns):
    torch.manual_seed(0)
    stage = Stage(name="s", epochs=1, train=patterns, upscale=1)
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64).to(memory_format=torch.channels_last)
    found = []
    for fast in (False, True):
        torch.manual_seed(1)
        network = build(Architecture("plain18", 8, 5)).double()
        set_trainable(network, stage.train)
        training_mode(network, stage)
        form = StageNetwork(network, torch.float64) if fast else network
        form(x).square().sum().backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-8, atol=1e-10)


def test_what_is_not_there_is_named(tmp_path):
    """Nobody publishes one, by any library's name; a net without its own key is no such net."""
    for name in ("timm:plain18.a1_in1k", "IMAGENET1K_V1"):
        schedule = replace(SCHEDULES["plain-naive-fc"], weights=name)
        for ask in (lambda s=schedule: rehearse(s, 5, 64), lambda s=schedule: initial_network(s, 5)):
            with pytest.raises(UsageError, match="nobody publishes a plain18"):
                ask()
    assert arch_of("Plain18_Weights.IMAGENET1K_V1") is None
    state = {k: v for k, v in build(Architecture("plain18", 8, 5)).state_dict().items() if k != "no_shortcuts"}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "net.safetensors")
    schedule = replace(SCHEDULES["plain-naive-fc"], width=8, weights=str(tmp_path / "net.safetensors"))
    with pytest.raises(DataError, match="expected plain18 of width 8 with its key no_shortcuts, as fastres writes it"):
        rehearse(schedule, 5, 64)
