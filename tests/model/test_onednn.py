"""The fused forward-only layers equal the plain ones to rounding, and are used only where they may be."""

import pytest
import torch
from torch.nn import functional

from fastres.model import onednn
from fastres.model.fold import StageNetwork
from fastres.model.freeze import set_trainable
from fastres.model.network import Architecture, build

DTYPES = [d for d in (torch.float32, torch.bfloat16) if onednn.usable(d)]
pytestmark = pytest.mark.skipif(not DTYPES, reason="this torch was built without oneDNN")


def nhwc(*shape, dtype, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype, memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride,side,kernel", [(1, 9, 3), (2, 9, 3), (2, 8, 1), (2, 32, 7), (1, 1, 3)])
@torch.no_grad()
def test_fused_convolution_is_the_plain_one(dtype, stride, side, kernel):
    """Against float64 of the same numbers: one rounding to bfloat16 (2^-8), or float32's sum over the window."""
    pad, tolerance = kernel // 2, 2.0**-8 if dtype == torch.bfloat16 else 1e-5
    x, weight = nhwc(5, 3, side, side, dtype=dtype), nhwc(8, 3, kernel, kernel, dtype=dtype, seed=1)
    bias = torch.ones(8)
    convolution = onednn.fused_convolution(weight, bias.to(dtype), (stride, stride), (pad, pad))
    truth = functional.conv2d(x.double(), weight.double(), bias.double(), stride, pad)
    add = nhwc(*truth.shape, dtype=dtype, seed=2)
    for relu, term, wanted in (
        (False, None, truth),
        (True, None, truth.relu()),
        (False, add, truth + add),
        (True, add, (truth + add).relu()),
    ):
        made = convolution(x, relu=relu, add=None if term is None else term.clone())
        assert made.dtype == dtype and made.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(made.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_does_not_depend_on_batches_seen_before(dtype):
    """A resumed run may begin with an epoch's partial batch: the weight's layout must not remember it."""
    weight, bias = nhwc(16, 16, 3, 3, dtype=dtype), torch.zeros(16, dtype=dtype)
    a, b = (onednn.fused_convolution(weight, bias, (1, 1), (1, 1)) for _ in range(2))
    x = nhwc(32, 16, 14, 14, dtype=dtype, seed=1)
    a(x[:3], relu=True)
    assert torch.equal(a(x, relu=True), b(x, relu=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels,side", [(16, 28), (64, 7), (128, 4)])
def test_a_weight_is_laid_out_once(dtype, channels, side, capfd):
    """oneDNN says what it does: in the second call it convolves and reorders nothing."""
    convolution = onednn.fused_convolution(
        nhwc(channels, channels, 3, 3, dtype=dtype), torch.zeros(channels, dtype=dtype), (1, 1), (1, 1)
    )
    x = nhwc(8, channels, side, side, dtype=dtype, seed=1)
    convolution(x, relu=True)
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        convolution(x, relu=True)
    done = [line for line in capfd.readouterr().out.splitlines() if ",exec," in line]
    assert any(",convolution," in line for line in done) and not any(",reorder," in line for line in done)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 5, 2, 6), (2, 3, 7, 9), (1, 1, 2, 2), (2, 4, 1, 1)])
def test_integer_max_pool_is_the_max_pool(dtype, shape):
    x = nhwc(*shape, dtype=dtype).relu()
    pooled = onednn.max_pool_of_positive(x)
    assert torch.equal(pooled, functional.max_pool2d(x, 3, 2, 1))
    assert pooled.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stem_in_parts_is_the_stem_at_once(dtype, monkeypatch):
    convolution = onednn.fused_convolution(nhwc(8, 3, 7, 7, dtype=dtype), torch.zeros(8, dtype=dtype), (2, 2), (3, 3))
    x = nhwc(5, 3, 16, 16, dtype=dtype, seed=1)
    at_once = convolution.pooled(x)
    two_images = 2 * 8 * 8 * 8 * x.element_size()
    monkeypatch.setattr(onednn, "CACHE_BYTES", two_images / torch.get_num_threads())
    in_parts = convolution.pooled(x)
    torch.testing.assert_close(in_parts, at_once)
    assert in_parts.shape == (5, 8, 4, 4) and in_parts.is_contiguous(memory_format=torch.channels_last)


def test_only_forward_only_parts_are_fused():
    network = build(Architecture("resnet18", 8, 6))
    set_trainable(network, ("layer2.0.conv1.weight",))
    network.eval()
    form, calls = StageNetwork(network, torch.float32), []
    for block in (form.blocks[0], form.blocks[-1]):  # before and behind what learns
        block.units[0].fused = lambda x, block=block, **_: calls.append(block) or torch.zeros_like(x)
    form(nhwc(2, 3, 32, 32, dtype=torch.float32)).sum().backward()
    assert calls == [form.blocks[0]] and network.layer2[0].conv1.weight.grad is not None


@torch.no_grad()
def test_weights_that_are_not_finite_still_show():
    network = build(Architecture("resnet18", 8, 6)).eval()
    x = nhwc(1, 3, 32, 32, dtype=torch.float32)
    assert StageNetwork(network, torch.float32, inference=True).stem.runs_fused(x)
    network.layer1[0].conv1.weight[0, 0, 0, 0] = torch.nan
    assert StageNetwork(network, torch.float32, inference=True)(x).isnan().any()


def test_without_the_operators_nothing_is_fused(monkeypatch):
    def missing(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onednn.FusedConvolution, "__init__", missing)
    onednn.usable.cache_clear()
    try:
        assert not onednn.usable(torch.float32)
        form = StageNetwork(build(Architecture("resnet18", 8, 6)).eval(), torch.float32, inference=True)
        assert form.stem.fused is None
    finally:
        onednn.usable.cache_clear()
    assert not onednn.usable(torch.float64) and not onednn.usable(torch.float16)
