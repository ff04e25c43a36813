"""plain18: resnet18 without its shortcuts."""

import pytest
import torch

from fastres.machine.errors import DataError
from fastres.model.fold import StageNetwork
from fastres.model.network import Architecture, build, describe
from fastres.model.weights import load


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
