"""The fused norm's kernels compiled for GPUs that are not here: they fit the registers, nothing spills."""

import re

import pytest
import torch
from torch import nn

from tests.support.compiling import printed_by

pytest.importorskip("triton", reason="Triton is not installed")
ARCHITECTURES = {75: torch.float16, 80: torch.bfloat16, 86: torch.bfloat16, 90: torch.bfloat16}
KERNELS = ("moments", "statistics", "normalise", "gradient_sums", "join", "input_gradient")
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


@pytest.mark.slow
def test_compiles_without_a_gpu(tmp_path):
    """PTX and machine code, with and without add: what the interpreter cannot tell. A program's 64-bit address of its
    rows is there too, without which a tensor of 2^31 elements would be read wrongly."""
    program = "from tests.model import test_norm_compile as t; print([t.faults(a) for a in t.ARCHITECTURES])"
    assert printed_by(program, tmp_path) == str([[]] * len(ARCHITECTURES))


def launches(dtype: torch.dtype) -> list[tuple]:
    """(kernel, arguments, named) of each launch of a forward and backward pass with add, and of one without: nothing
    runs."""
    from fastres.model.norm import function, kernels

    found, real = [], {name: getattr(kernels, f"{name}_kernel") for name in KERNELS}

    class Recorder:
        def __init__(self, kernel) -> None:
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *arguments, **named: found.append((self.kernel, arguments, named))

    for name, kernel in real.items():
        setattr(kernels, f"{name}_kernel", Recorder(kernel))
    x = torch.zeros(4, 64, 64, 64, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    for add in (x.detach(), None):
        function.batch_norm(nn.BatchNorm2d(64), x, relu=True, add=add).sum().backward()
    for name, kernel in real.items():
        setattr(kernels, f"{name}_kernel", kernel)
    return found


def source_of(kernel, arguments: tuple, named: dict):
    """What Triton would compile for this launch."""
    from triton.compiler import ASTSource

    signature, aligned = {}, {}
    for i, (parameter, value) in enumerate(zip(kernel.params, arguments)):
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
        whole = isinstance(value, torch.Tensor) or (not isinstance(value, float) and value % 16 == 0)
        if whole and not parameter.do_not_specialize:
            aligned[(i,)] = [["tt.divisibility", 16]]
    constants = {(kernel.arg_names.index(key),): value for key, value in named.items()}
    return ASTSource(kernel, signature | dict.fromkeys(named, "constexpr"), constants, aligned)


def faults(architecture: int) -> list[str]:
    """What is wrong with the code of each launch for compute capability `architecture` / 10, compiled once."""
    import triton
    from triton.backends.compiler import GPUTarget

    from fastres.model.norm.function import OPTIONS
    from tests.views.test_triton_compile import usage

    found, seen = [], set()
    for kernel, arguments, given in launches(ARCHITECTURES[architecture]):
        named = {key: value for key, value in given.items() if key not in OPTIONS}
        source = source_of(kernel, arguments, named)
        made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=OPTIONS)
        if made.hash in seen:
            continue
        seen.add(made.hash)
        used = usage(made.asm["cubin"])
        if "STACK:0" not in used or "LOCAL:0" not in used:
            found.append(f"{kernel.__name__}: {used}")
        walks = kernel.__name__ not in ("statistics_kernel", "join_kernel")
        if walks and not re.search(r"tt\.addptr %x\w*, %\w+ : !tt\.ptr<\w+>, i64", made.asm["ttir"]):
            found.append(f"{kernel.__name__}: no 64-bit address of x")
    return found
