"""cuDNN's fused convolutions as the network calls them, on a CPU: stand-ins under the operators' own names and schemas
answer for cuDNN. What cuDNN itself does, nobody has seen yet.
"""

import pytest
import torch
from torch.nn import functional

from fastres.model import cudnn, fold, units
from fastres.model.freeze import batch_norms, set_trainable
from fastres.model.network import Architecture, build

CPU = torch.device("cpu")
OPERATORS = torch.ops.aten.cudnn_convolution_relu.default, torch.ops.aten.cudnn_convolution_add_relu.default


class StandIn:
    """Both operators, said plainly; counts its calls, and can go wrong as cuDNN might."""

    def __init__(self) -> None:
        self.calls, self.fault, self.shapes = [], None, set()

    def relu(self, x, weight, bias, stride, padding, dilation, groups):
        return self._run("relu", x, weight, None, 0.0, bias, stride, padding, dilation, groups)

    def add_relu(self, x, weight, z, alpha, bias, stride, padding, dilation, groups):
        return self._run("add_relu", x, weight, z, alpha, bias, stride, padding, dilation, groups)

    def _run(self, name, x, weight, z, alpha, bias, stride, padding, dilation, groups):
        assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (x, weight))
        assert x.dtype == weight.dtype == bias.dtype and not torch.is_grad_enabled()
        self.calls.append(name)
        if self.fault == "no engine" and x.shape[1] == 3:
            raise RuntimeError("cuDNN: no valid engine")
        out = functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
        out = out if z is None else out + alpha * z
        out = out.relu()
        seen = x.shape, weight.data_ptr()
        if self.fault == "not at first" and z is None and seen in self.shapes:
            return torch.full_like(out, torch.nan)  # 0 times what lies in its output, which a first call's search wrote
        self.shapes.add(seen)
        return torch.zeros_like(out) if self.fault == "garbage" and z is None else out


@pytest.fixture
def stand_in(monkeypatch):
    made, library = StandIn(), torch.library.Library("aten", "IMPL", "CPU")
    library.impl("cudnn_convolution_relu", made.relu)
    library.impl("cudnn_convolution_add_relu", made.add_relu)
    monkeypatch.setattr(cudnn, "DEVICE", "cpu")
    cudnn.usable.cache_clear()
    yield made
    cudnn.usable.cache_clear()
    library._destroy()


def nhwc(*shape, dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype, memory_format=torch.channels_last)


def lived_in(patterns=()):
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 6)).eval()
    for norm in batch_norms(network):
        torch.nn.init.normal_(norm.running_mean, 0, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    if patterns:
        set_trainable(network, patterns)
    return network


def test_the_operators_take_what_they_are_given():
    """By their own schemas: names, order and kinds of the arguments, the sum's factor in the middle."""
    given = [[(a.name, str(a.type)) for a in operator._schema.arguments] for operator in OPERATORS]
    window = [("stride", "List[int]"), ("padding", "List[int]"), ("dilation", "List[int]"), ("groups", "int")]
    bias = ("bias", "Optional[Tensor]")
    assert given[0] == [("self", "Tensor"), ("weight", "Tensor"), bias, *window]
    add = [("z", "Tensor"), ("alpha", "Optional[number]")]
    assert given[1] == [("self", "Tensor"), ("weight", "Tensor"), *add, bias, *window]


@pytest.mark.parametrize("dtype", cudnn.DTYPES)
@pytest.mark.parametrize("stride,side,kernel", [(1, 9, 3), (2, 9, 3), (2, 8, 1), (1, 1, 3)])
@torch.no_grad()
def test_fused_convolution_is_the_plain_one(stand_in, dtype, stride, side, kernel):
    pad, tolerance = kernel // 2, 2.0**-7 if dtype == torch.bfloat16 else 1e-5
    x, weight = nhwc(5, 4, side, side, dtype=dtype), nhwc(8, 4, kernel, kernel, dtype=dtype, seed=1)
    bias = torch.arange(8.0) - 4
    convolution = cudnn.fused_convolution(weight, bias.to(dtype), (stride, stride), (pad, pad))
    truth = functional.conv2d(x.double(), weight.double(), bias.double(), stride, pad)
    add = nhwc(*truth.shape, dtype=dtype, seed=2)
    for relu, term, wanted, calls in (
        (False, None, truth, 0),
        (True, None, truth.relu(), 3),  # the first try, whose first call is the search's, and the use
        (False, add, truth + add, 0),
        (True, add, (truth + add).relu(), 3),
    ):
        stand_in.calls.clear()
        made = convolution(x, relu=relu, add=term)
        assert len(stand_in.calls) == calls and made.dtype == dtype
        torch.testing.assert_close(made.double(), wanted, rtol=tolerance, atol=4 * tolerance)
    stand_in.calls.clear()
    convolution(x, relu=True)
    assert stand_in.calls == ["relu"]  # not tried again
    assert torch.equal(convolution.pooled(x), functional.max_pool2d(convolution(x, relu=True), 3, 2, 1))


@pytest.mark.parametrize("fault", [None, "no engine", "garbage", "not at first"])
@torch.no_grad()
def test_a_network_is_the_plain_one_whatever_cudnn_lacks(stand_in, fault):
    """Evaluation: all 17 convolutions with a ReLU go in one pass, the three downsamples and what fails plainly."""
    network, x = lived_in(), nhwc(2, 3, 64, 64)
    form = fold.StageNetwork(network, torch.float32, inference=True, forms=units.CUDA_FUSED)
    stand_in.fault = fault
    form(x)
    stand_in.calls.clear()
    torch.testing.assert_close(form(x), network(x), atol=1e-4, rtol=1e-4)
    lost = {None: [], "no engine": ["relu"], "garbage": ["relu"] * 9, "not at first": ["relu"] * 9}[fault]
    assert sorted([*stand_in.calls, *lost]) == ["add_relu"] * 8 + ["relu"] * 9


def test_only_what_is_in_front_of_all_that_learns_is_fused(stand_in):
    network = lived_in(("layer3.*",))
    form = fold.StageNetwork(network, torch.float32, forms=units.CUDA_FUSED)
    form(nhwc(2, 3, 32, 32)).sum().backward()  # the stand-in refuses to run where gradients are wanted
    tried = 2 + 2 * 9  # by `usable`, and by each unit of the stem's and the first two layers'
    assert len(stand_in.calls) == tried + 9 and network.layer3[0].conv1.weight.grad is not None


@torch.no_grad()
def test_weights_that_are_not_finite_still_show(stand_in):
    network = lived_in()
    network.layer1[0].conv1.weight[0, 0, 0, 0] = torch.nan
    form = fold.StageNetwork(network, torch.float32, inference=True, forms=units.CUDA_FUSED)
    assert form(nhwc(1, 3, 32, 32)).isnan().any() and not stand_in.calls


def test_where_it_may_not_run_it_does_not(stand_in, monkeypatch):
    layer = nhwc(8, 8, 3, 3), torch.zeros(8), (1, 1), (1, 1)
    assert cudnn.fused_convolution(*layer) is not None and cudnn.usable(torch.bfloat16, CPU)
    half = [t.half() for t in layer[:2]]
    assert cudnn.fused_convolution(*half, *layer[2:]) is None, "float16 overflows, and a ReLU may hide the NaN"
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "deterministic", True)
        assert cudnn.fused_convolution(*layer) is None, "a run that must repeat"
    monkeypatch.setattr(cudnn, "DEVICE", "cuda")
    cudnn.usable.cache_clear()
    assert cudnn.fused_convolution(*layer) is None, "not a GPU"


@pytest.mark.parametrize("fault", ["garbage", "raises"])
def test_operators_that_are_not_there_or_wrong_are_not_used(stand_in, monkeypatch, fault):
    stand_in.fault = fault
    if fault == "raises":
        monkeypatch.setattr(cudnn.FusedConvolution, "in_one", lambda *_: torch.ops.aten.no_such_operator)
    assert not cudnn.usable(torch.float32, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", cudnn.DTYPES)
@torch.no_grad()
def test_cudnn_itself_answers_as_the_stand_in_does(dtype):
    """The operators run, and an evaluation in them is the plain one's; which layers went plainly is said on failure."""
    assert cudnn.usable(dtype, torch.device("cuda", 0))
    network = lived_in().cuda().to(memory_format=torch.channels_last)
    x = nhwc(4, 3, 64, 64, dtype=dtype).cuda()
    forms = units.CUDA_FUSED, units.PLAIN
    fused, plain = (fold.StageNetwork(network, dtype, inference=True, forms=f) for f in forms)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        ours, theirs = fused(x), plain(x)
    assert (ours.double() - theirs.double()).norm() <= (2e-2 if dtype == torch.bfloat16 else 1e-4) * theirs.norm()
    layers = [m.fused for m in fused.modules() if isinstance(m, units.Folded)]
    lost = [key for layer in layers for key, equal in layer._equal.items() if not equal and key[0][1] != 3]
    assert not lost, lost
