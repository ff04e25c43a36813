"""A network of the tests' own data that has learnt nothing, and its file."""

import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build(Architecture("resnet18", 8, 4)).eval()


@pytest.fixture
def weights(packed, net, tmp_path):
    path = tmp_path / "net.safetensors"
    digest = load_manifest(packed).class_digest
    path.write_bytes(save_weights(net, {"upscale": 4, "class_digest": digest, "convention": "half-pixel"}))
    return path
