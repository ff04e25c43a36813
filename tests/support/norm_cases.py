"""What the fused norm is tried on, and the comparison of each case with the definition in float64.

`python norm_cases.py FILE NAME...` makes cases and saves them: in Triton's interpreter, which is chosen when Triton is
imported, so in a process of its own. It imports as little as will do.
"""

import sys
from dataclasses import dataclass

import torch
from torch import nn

from fastres.model.norm import function, reference

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
EPSILON = {F32: 2.0**-23, BF16: 2.0**-7, F16: 2.0**-10}  # a unit in the last place of 1: Triton's interpreter cuts
OUT = ("y", "dx", "dg", "db", "dadd", "mean", "var")


@dataclass(frozen=True)
class Case:
    """Sizes [B, C, H, W], what stands behind the norm, how many spreads the mean is off, sizes of tiles and shares."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype = F32
    relu: bool = True
    add: bool = False
    offset: float = 0.0
    tile: int = 256
    shares: int = 8


CASES = {  # what each probes
    "two values a channel": Case((2, 64, 1, 1), add=True),
    "one image, odd sides, odd channels": Case((1, 5, 7, 9)),
    "neither relu nor add": Case((3, 12, 5, 5), relu=False),
    "add without relu": Case((3, 8, 5, 3), relu=False, add=True),
    "bfloat16": Case((4, 9, 13, 11), BF16, tile=1024),
    "bfloat16, add": Case((4, 9, 13, 11), BF16, add=True, tile=1024, shares=4),
    "float16": Case((3, 16, 6, 6), F16, tile=512),
    "float16, add": Case((3, 16, 6, 6), F16, add=True, tile=512),
    "channels in several blocks": Case((2, 96, 3, 3), BF16, add=True, tile=1024),
    "far from zero": Case((3, 8, 12, 12), offset=3000.0),
    "one channel": Case((2, 1, 5, 5)),
    "tiles as on a GPU": Case((3, 16, 14, 14), BF16, add=True, tile=4096, shares=512),
}
LARGE = {
    "512 channels": Case((2, 512, 7, 7), add=True, tile=4096, shares=512),
    "a first block": Case((4, 64, 20, 20), BF16, add=True, tile=4096, shares=512),
    "not a power of two": Case((5, 100, 9, 9), F16, add=True, tile=4096, shares=512),
}
CASES_OF_ALL = CASES | LARGE


def inputs(case: Case) -> dict[str, torch.Tensor]:
    """x, add and dy of the case's dtype, channels-last; weight, bias and running statistics f32."""
    generator = torch.Generator().manual_seed(sum(case.shape))
    x, add, dy = torch.randn(3, *case.shape, generator=generator)
    spread = 0.5 + torch.rand(4, case.shape[1], generator=generator)
    x = 2 * spread[0][:, None, None] * (x + case.offset)
    big = {"x": x, "add": add, "dy": dy}
    big = {name: t.to(case.dtype).contiguous(memory_format=torch.channels_last) for name, t in big.items()}
    sign = 1.0 - 2.0 * (torch.arange(case.shape[1]) % 3 == 1)  # weights may be negative
    return big | {"weight": spread[1] * sign, "bias": spread[2] - 1, "mean": spread[3] - 1, "var": spread[3]}


def make(name: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The kernels' results for a case, on the CPU, by the names of OUT."""
    case = CASES_OF_ALL[name]
    given = {key: value.to(device) for key, value in inputs(case).items()}
    norm = norm_of(case, given).to(device)
    x, add = given["x"].requires_grad_(), given["add"].requires_grad_() if case.add else None
    sizes = function.TILE, function.SHARES
    function.TILE, function.SHARES = case.tile, case.shares
    y = function.batch_norm(norm, x, relu=case.relu, add=add)
    y.backward(given["dy"])
    function.TILE, function.SHARES = sizes
    assert y.dtype == case.dtype and y.is_contiguous(memory_format=torch.channels_last)
    found = y, x.grad, norm.weight.grad, norm.bias.grad, None if add is None else add.grad
    found = dict(zip(OUT, (*found, norm.running_mean, norm.running_var)))
    return {key: value.detach().cpu() for key, value in found.items() if value is not None}


def norm_of(case: Case, given: dict[str, torch.Tensor]) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(case.shape[1])
    norm.load_state_dict(
        {
            "weight": given["weight"],
            "bias": given["bias"],
            "running_mean": given["mean"],
            "running_var": given["var"],
            "num_batches_tracked": torch.tensor(0),
        }
    )
    return norm


def check(name: str, ours: dict[str, torch.Tensor]) -> None:
    """Each result against float64 of the same numbers.

    In units of what its sum is made of, a result may be off by some roundings of float32 (more, the more spreads the
    mean is from zero), and by one rounding to its own dtype. The ReLU's cut is taken from our y, which may differ in
    sign from the truth only where that is within the rounding of zero.
    """
    case, given = CASES_OF_ALL[name], inputs(CASES_OF_ALL[name])
    leaf = {key: given[key].double().requires_grad_() for key in ("x", "weight", "bias", "add")}
    add = leaf["add"] if case.add else None
    before = reference.normalise(leaf["x"], leaf["weight"], leaf["bias"], 1e-5, relu=False, add=add)
    truth = before.relu() if case.relu else before
    cut = given["dy"].double() * ((ours["y"] > 0) if case.relu else 1)
    before.backward(cut)
    mean, var = reference.moved(given["mean"], given["var"], given["x"], 0.1)
    count, small = given["x"].numel() // case.shape[1], 16 * EPSILON[F32] * (1 + case.offset)
    scale = (given["weight"].double() / (reference.moments(given["x"])[1] + 1e-5).sqrt()).abs()[:, None, None]
    sums = cut.abs().sum((0, 2, 3))
    size = {
        "y": 1 + truth.abs(),
        "dx": scale * (cut.abs() + 4 * sums[:, None, None] / count),
        "dg": 4 * sums,
        "db": sums,
        "dadd": 0 * cut,
        "mean": 1 + mean.abs(),
        "var": var.abs(),
    }
    wanted = dict(zip(OUT, (truth, leaf["x"].grad, leaf["weight"].grad, leaf["bias"].grad, cut, mean, var)))
    assert ours.keys() == wanted.keys() - (set() if case.add else {"dadd"})
    for key, found in ours.items():
        own = EPSILON[found.dtype] if found.dtype != F32 else 0.0
        allowed = small * size[key] + own * wanted[key].detach().abs()
        assert ((found.double() - wanted[key].detach()).abs() <= allowed).all(), (name, key)
    if case.relu:
        near = small * size["y"].detach()
        assert torch.equal((ours["y"] > 0) | (before.abs() <= near), (before > 0) | (before.abs() <= near))


if __name__ == "__main__":
    assert "triton" not in sys.modules, "a machine may lack Triton: importing the norm's files must not ask for it"
    torch.set_num_threads(1)
    torch.save({name: make(name) for name in sys.argv[2:]}, sys.argv[1])
