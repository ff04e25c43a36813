"""The fused norm equals its definition: here through Triton's interpreter, in a process of its own (the interpreter is
chosen when Triton is imported); on a machine with a GPU also as it really runs, with a CUDA graph.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from fastres.model import fold, units
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build
from fastres.model.norm import function, reference
from fastres.schedules.types import Stage
from tests.support import norm_cases
from tests.support.norm_cases import CASES, CASES_OF_ALL, LARGE, check, inputs, make

pytest.importorskip("triton", reason="Triton is not installed")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def interpret(program: str, path: Path, names: tuple) -> dict:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, program, str(path), *names], env=environment, check=True, timeout=250)
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict:
    return interpret(norm_cases.__file__, tmp_path_factory.mktemp("norm") / "small.pt", tuple(CASES))


@pytest.fixture(scope="module")
def interpreted_large(tmp_path_factory) -> dict:
    return interpret(norm_cases.__file__, tmp_path_factory.mktemp("norm") / "large.pt", tuple(LARGE))


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict:
    return interpret(__file__, tmp_path_factory.mktemp("norm") / "networks.pt", ())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition_in_the_interpreter(name, interpreted):
    check(name, interpreted[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_shapes_equal_the_definition_in_the_interpreter(name, interpreted_large):
    check(name, interpreted_large[name])


@pytest.mark.parametrize("name", ["one image, odd sides, odd channels", "add without relu", "far from zero"])
def test_the_definition_is_torchs(name):
    """Output, gradients and statistics of torch's modules, in float64."""
    case, given = CASES[name], inputs(CASES[name])
    norm = nn.BatchNorm2d(case.shape[1]).double()
    norm.weight.data, norm.bias.data = given["weight"].double(), given["bias"].double()
    norm.running_mean.copy_(given["mean"]), norm.running_var.copy_(given["var"])
    x, add = given["x"].double().requires_grad_(), given["add"].double() if case.add else None
    theirs = norm(x) if add is None else norm(x) + add
    theirs = theirs.relu() if case.relu else theirs
    ours = reference.normalise(x, norm.weight, norm.bias, norm.eps, relu=case.relu, add=add)
    moved = reference.moved(given["mean"], given["var"], x.detach(), norm.momentum)
    torch.testing.assert_close(moved, (norm.running_mean, norm.running_var))
    torch.testing.assert_close(ours, theirs)
    leaves = x, norm.weight, norm.bias
    gradients = (torch.autograd.grad(y, leaves, given["dy"].double()) for y in (ours, theirs))
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_a_block_is_the_plain_one_under_autocast_and_without_gradients(networks):
    """Of three units with a downsample, bf16: what torch rounds two or three times is rounded once."""
    for name, difference in networks["block"].items():
        assert difference <= (0 if "num_batches" in name else 2e-2), (name, difference)


@pytest.mark.slow
def test_a_network_is_the_plain_one(networks):
    """One step of everything, float32: logits, gradients and statistics, and 20 norms did run in Triton's kernels."""
    found = networks["network"]
    assert found.pop("fused norms") == 20
    for name, difference in found.items():
        assert difference <= 1e-4, (name, difference)


def test_one_value_a_channel_is_refused_as_torch_does():
    x = torch.zeros(1, 4, 1, 1)
    for run in (lambda: function.batch_norm(nn.BatchNorm2d(4), x, relu=True), lambda: nn.BatchNorm2d(4)(x)):
        with pytest.raises(ValueError, match="xpected more than 1 value per channel"):
            run()


def test_only_norms_it_replaces_are_replaced(monkeypatch):
    monkeypatch.setattr(function, "has_triton", lambda device: True)
    cpu = torch.device("cpu")
    assert function.can_run(nn.BatchNorm2d(4), cpu)
    others = nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4).double()
    others += nn.BatchNorm2d(4, track_running_stats=False), nn.SyncBatchNorm(4)
    assert not any(function.can_run(norm, cpu) for norm in others)
    for patterns, rule, fused in ((("*",), "frozen", 20), (("bn1.*",), "frozen", 1), (("fc.*",), "batch", 20)):
        form = form_of(patterns, rule)
        assert sum(isinstance(unit, units.PlainFused) for unit in form.modules()) == fused
    assert not any(isinstance(unit, units.PlainFused) for unit in form_of(("*",), "frozen", units.CPU_FUSED).modules())


def form_of(patterns, rule, forms=units.CUDA_FUSED) -> fold.StageNetwork:
    network = build(Architecture("resnet18", 8, 6))
    set_trainable(network, patterns)
    training_mode(network, Stage(name="s", epochs=1, train=patterns, upscale=4, bn=rule))
    return fold.StageNetwork(network, torch.float32, forms=forms)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", CASES_OF_ALL)
def test_equals_the_definition_on_the_device(name):
    check(name, make(name, "cuda"))


@pytest.mark.gpu
@on_gpu
def test_more_elements_than_32_bits_count():
    """The last image is as in a batch of its own kind: 2^31 elements lie in front of it."""
    x = torch.zeros(43, 64, 896, 896, dtype=torch.bfloat16, device="cuda").to(memory_format=torch.channels_last)
    x[-1] = torch.randn(64, 896, 896, device="cuda")
    norm = nn.BatchNorm2d(64).cuda()
    y = function.batch_norm(norm, x, relu=False)
    mean, var = x[-1].double().mean((1, 2)) / 43, x[-1].double().square().mean((1, 2)) / 43
    truth = (x[-1].double() - mean[:, None, None]) / (var - mean**2 + 1e-5).sqrt()[:, None, None]
    assert x.numel() > 2**31 and ((y[-1] - truth).abs() <= 2**-7 * (1 + truth.abs())).all()


@pytest.mark.gpu
@on_gpu
def test_a_captured_graph_holds_it():
    """Replayed with another x in the same place: output, gradients and statistics are those of an eager call."""
    norm, x = nn.BatchNorm2d(64).cuda(), torch.randn(8, 64, 14, 14, device="cuda").to(memory_format=torch.channels_last)
    eager, other = copy.deepcopy(norm), torch.randn_like(x)
    x.requires_grad_()
    function.batch_norm(copy.deepcopy(norm), x, relu=True).sum().backward()  # compiled before the capture
    x.grad, graph = None, torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = function.batch_norm(norm, x, relu=True)
        y.square().sum().backward()
    norm.load_state_dict(eager.state_dict())
    x.data.copy_(other)
    graph.replay()
    again = other.clone().requires_grad_()
    wanted = function.batch_norm(eager, again, relu=True)
    wanted.square().sum().backward()
    assert torch.equal(y, wanted) and torch.equal(x.grad, again.grad)
    assert torch.equal(norm.weight.grad, eager.weight.grad)
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), eager.buffers()))


def differences(ours: dict, theirs: dict) -> dict[str, float]:
    """Norm of the difference by norm of theirs."""
    pairs = ((name, value.detach().double(), theirs[name].detach().double()) for name, value in ours.items())
    return {name: ((a - b).norm() / b.norm()).item() for name, a, b in pairs}


def state(module: nn.Module, **more) -> dict[str, torch.Tensor]:
    gradients = {f"d {name}": p.grad for name, p in module.named_parameters()}
    return {**dict(module.named_buffers()), **gradients, **more}


def block_in_the_interpreter() -> dict[str, float]:
    """A block under autocast, forward and back, then forward without gradients: fused against plain."""
    torch.manual_seed(0)
    network, found = build(Architecture("resnet18", 8, 4)).layer2[0].train(), []
    x = torch.randn(2, 8, 8, 8).to(memory_format=torch.channels_last)
    for unit in (units.PlainFused, units.Plain):
        block, given = fold.Block(copy.deepcopy(network), unit), x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = block(given)
            y.float().square().mean((2, 3)).sum().backward()  # a gradient that is no tensor of its own
            with torch.no_grad():
                block(given)
        assert y.dtype == torch.bfloat16
        found.append(state(block, y=y, x=given.grad))
    return differences(*found)


def network_in_the_interpreter() -> dict[str, float]:
    torch.manual_seed(0)
    network, found = build(Architecture("resnet18", 8, 4)).train(), []
    x, labels = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last), torch.arange(4)
    for forms in (units.CUDA_FUSED, units.PLAIN):
        form = fold.StageNetwork(copy.deepcopy(network), torch.float32, forms=forms)
        logits = form(x)
        functional.cross_entropy(logits, labels).backward()
        fused = sum(isinstance(unit, units.PlainFused) for unit in form.modules())
        found.append((fused, state(form, logits=logits)))
    assert found[1][0] == 0
    return {"fused norms": found[0][0], **differences(found[0][1], found[1][1])}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save({"block": block_in_the_interpreter(), "network": network_in_the_interpreter()}, sys.argv[1])
