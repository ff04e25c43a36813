"""The network is torchvision's; weights are checked; surgery does what section 3.4 says and keeps every shape."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from fastres.machine.errors import DataError, MachineError, UsageError
from fastres.model.freeze import batch_norms, recalibrate, set_trainable
from fastres.model.metadata import read_metadata
from fastres.model.network import BLOCKS, Architecture, build, describe, has_shortcuts
from fastres.model.reading import read_weights
from fastres.model.surgery import (
    _response_std,
    feature_sides,
    replace_and_initialise_stem,
    reset_head,
    shrink_filters,
)
from fastres.model.weights import initial_network, load, save_weights
from fastres.schedules.types import Schedule, Stage
from fastres.views.resample import matrix

SLIM = Schedule(name="slim", width=8, weights=None, stages=(Stage(name="all", epochs=1, train=("*",), upscale=4),))


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in BLOCKS if has_shortcuts(arch)])
def test_full_width_is_torchvisions_network(arch):
    """Same keys, shapes and, for the same weights, the same function."""
    theirs = torchvision.models.get_model(arch, weights=None)
    ours = build(Architecture(arch, 64, 1000))
    assert describe(theirs.state_dict()) == Architecture(arch, 64, 1000)
    if arch == "resnet18":
        load(ours, theirs.state_dict(), "torchvision")
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)
    else:
        shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (ours, theirs)]
        assert shapes[0] == shapes[1]


def test_describe_knows_what_it_was_told():
    for architecture in (Architecture("resnet50", 8, 7), Architecture("resnet34", 8, 3, "3x3")):
        assert describe(build(architecture).state_dict()) == architecture
    assert describe({"fc.weight": torch.zeros(3, 3)}) is None


def test_weights_files_round_trip(tmp_path):
    network = build(Architecture("resnet18", 8, 5))
    (tmp_path / "a.safetensors").write_bytes(save_weights(network, {"side": 64}))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "b.pth")
    for name in ("a.safetensors", "a.pth", "b.pth"):
        state = read_weights(tmp_path / name)
        assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert read_metadata(tmp_path / "a.safetensors") == {"side": 64} and read_metadata(tmp_path / "a.pth") == {}


class Runs:
    """Pickled, this would create a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.fault(25)
def test_pickled_code_is_refused_and_not_run(tmp_path):
    bad = tmp_path / "bad.pth"
    bad.write_bytes(pickle.dumps({"conv1.weight": Runs(tmp_path / "ran")}))
    with pytest.raises(DataError, match="not loaded|not readable"):
        read_weights(bad)
    torch.save({"conv1.weight": Runs(tmp_path / "ran")}, bad)
    with pytest.raises(DataError, match="not loaded|not readable"):
        read_weights(bad)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "text"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_damaged_weights_are_data_errors(tmp_path, damage, suffix):
    path = tmp_path / f"w.{suffix}"
    network = build(Architecture("resnet18", 8, 5))
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        path.write_bytes(save_weights(network, {}))
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>404</html>"}[damage])
    with pytest.raises(MachineError if damage == "missing" else DataError, match=f"w.{suffix}"):
        read_weights(path)


def test_wrong_architecture_says_what_differs(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save_weights(build(Architecture("resnet34", 8, 5)), {}))
    schedule = replace(SLIM, weights=str(path))
    with pytest.raises(DataError, match="found resnet34 of width 8 .* expected resnet18 of width 8"):
        initial_network(schedule, 5)
    state = build(Architecture("resnet18", 8, 5)).state_dict()
    del state["layer1.0.bn1.weight"]
    with pytest.raises(DataError, match="1 missing, first layer1.0.bn1.weight"):
        load(build(Architecture("resnet18", 8, 5)), state, "w")


def test_unknown_torchvision_weights_are_a_usage_error():
    with pytest.raises(UsageError, match="IMAGENET1K_V9"):
        initial_network(replace(SLIM, width=64, weights="IMAGENET1K_V9"), 5)


@pytest.mark.parametrize("init", ["torch7", "torch7-raw", "antialias", "pi-resize", "blank"])
def test_stem_surgery_keeps_every_side(init):
    network = build(Architecture("resnet18", 8, 5))
    before = feature_sides(network, 224)
    views = [torch.randn(4, 3, 32, 32)]
    replace_and_initialise_stem(network, init, torch.Generator().manual_seed(0), lambda: views, lambda: views)
    assert before == feature_sides(network, 56) == {"layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}
    assert network.conv1.weight.shape == (8, 3, 3, 3) and network.conv1.stride == (1, 1)
    with pytest.raises(UsageError, match="already"):
        replace_and_initialise_stem(network, init, torch.Generator(), list, list)


def test_torch7_raw_takes_taps_0_3_6_and_antialias_is_area_true():
    filters = torch.randn(6, 3, 7, 7)
    assert torch.equal(shrink_filters(filters, "torch7-raw"), filters[:, :, ::3, ::3])
    constant = shrink_filters(torch.full((1, 3, 7, 7), 0.5), "antialias")
    torch.testing.assert_close(constant, torch.full((1, 3, 3, 3), 0.5))
    checker = torch.tensor([[(-1.0) ** (i + j) for j in range(7)] for i in range(7)]).expand(1, 3, 7, 7)
    assert shrink_filters(checker, "antialias").abs().max() < 0.2 < shrink_filters(checker, "torch7-raw").abs().max()


def test_pi_resize_answers_white_noise_as_well_as_any_small_filter_can():
    """Least squares over the 49 patches of one pixel; and a filter that the small grid can hold comes back."""
    filters = torch.randn(2, 1, 7, 7, dtype=torch.float64).expand(2, 3, 7, 7)
    resize = matrix(7, 3, "half-pixel")
    patches = np.eye(49).reshape(49, 7, 7)
    small = np.einsum("hs,nst,wt->nhw", resize, patches, resize).reshape(-1, 9)
    wanted = np.linalg.lstsq(small, patches.reshape(-1, 49) @ filters[:, 0].reshape(2, 49).numpy().T, rcond=None)[0]
    found = shrink_filters(filters, "pi-resize")
    np.testing.assert_allclose(found[:, 0].reshape(2, 9).T, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(shrink_filters(filters, "antialias")[:, 0].reshape(2, 9).T.numpy() - wanted).max() > 0.5
    kernel = np.random.default_rng(1).standard_normal((3, 3))
    held = torch.from_numpy(np.einsum("hs,hw,wt->st", resize, kernel, resize)).expand(1, 3, 7, 7)
    np.testing.assert_allclose(shrink_filters(held, "pi-resize")[0, 0], kernel, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("init", ["torch7", "antialias"])
def test_gain_keeps_the_spread_of_each_filters_response(init):
    network = build(Architecture("resnet18", 8, 5))
    generator = torch.Generator().manual_seed(1)
    small = [torch.randn(4, 3, 14, 14, generator=generator) for _ in range(3)]
    large = [torch.nn.functional.interpolate(x, scale_factor=4, mode="bicubic") for x in small]
    before = _response_std(network.conv1, large)
    raw = shrink_filters(network.conv1.weight, init)
    replace_and_initialise_stem(network, init, generator, lambda: large, lambda: small)
    after = _response_std(network.conv1, small)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-8)
    gain = (network.conv1.weight / raw).detach()
    assert (gain.flatten(1).std(1) < 1e-3 * gain.flatten(1).mean(1)).all()  # one gain per filter
    responses = torch.cat([network.conv1(x).detach().transpose(0, 1).flatten(1) for x in small], 1).double()
    torch.testing.assert_close(after, responses.std(1, unbiased=False), rtol=1e-4, atol=1e-8)


def test_head_reset_is_torchs_default_range_and_reproducible():
    network = build(Architecture("resnet18", 8, 1000))
    reset_head(network, 200, torch.Generator().manual_seed(3))
    first = network.fc.weight.clone()
    assert network.fc.weight.shape == (200, 64) and network.fc.bias.shape == (200,)
    bound = 64**-0.5
    assert 0.99 * bound < first.abs().max() <= bound
    reset_head(network, 200, torch.Generator().manual_seed(3))
    assert torch.equal(network.fc.weight, first)


def test_patterns_freeze_and_an_idle_pattern_is_an_error():
    network = build(Architecture("resnet18", 8, 5))
    assert len(set_trainable(network, ("fc.*",))) == 2
    assert len(set_trainable(network, ("conv1.*", "bn1.*"))) == 3
    assert len(set_trainable(network, ("*",))) == 62
    with pytest.raises(UsageError, match="'head.*' matches no parameter"):
        set_trainable(network, ("fc.*", "head.*"))


def test_recalibration_gives_plain_averages():
    """bn1's statistics are those of conv1's output over all views; momenta and modes are as before."""
    network = build(Architecture("resnet18", 8, 5))
    batches = [torch.randn(8, 3, 32, 32) * 2 + 1 for _ in range(3)]
    torchs = copy.deepcopy(network).train()  # which reads its counter back from the device, at every layer
    for norm in batch_norms(torchs):
        norm.momentum = None
    with torch.no_grad():
        [torchs(x) for x in batches]
    recalibrate(network, batches, torch.no_grad)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(network.buffers(), torchs.buffers(), strict=True))
    responses = [network.conv1(x).detach() for x in batches]
    mean = torch.stack([r.mean((0, 2, 3)) for r in responses]).mean(0)
    variance = torch.stack([r.var((0, 2, 3)) for r in responses]).mean(0)
    torch.testing.assert_close(network.bn1.running_mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.bn1.running_var, variance, atol=1e-5, rtol=1e-4)
    assert {norm.momentum for norm in batch_norms(network)} == {0.1}
    assert not any(norm.training for norm in batch_norms(network))


@pytest.mark.slow
def test_final_weights_load_into_plain_torchvision(packed, tmp_path):
    """resnet18(num_classes=...) with the stem replaced by hand gives the same logits to 1e-4."""
    network = build(Architecture("resnet18", 64, 4, "3x3")).eval()
    with torch.no_grad():
        for norm in batch_norms(network):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    path = tmp_path / "final.safetensors"
    path.write_bytes(save_weights(network, {}))

    from safetensors.torch import load_file

    plain = torchvision.models.resnet18(num_classes=4)
    plain.conv1 = torch.nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    plain.maxpool = torch.nn.Identity()
    plain.load_state_dict(load_file(path))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 56, 56))).float()
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(x), network(x), atol=1e-4, rtol=1e-4)
