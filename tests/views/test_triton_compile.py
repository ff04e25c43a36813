"""The Triton kernels compiled on a machine without a GPU: they fit the registers of sm_90, and of older ones where
boxes and mixtures are decided; nothing spills."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from tests.support.compiling import printed_by
from tests.support.triton_cases import make

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architectures"),
    [
        *((name, (90,)) for name in ("training shape", "after size adaptation", "bfloat16", "twelve views")),
        ("everything", (75, 80, 86, 90)),
        ("everything, shrinking", (75, 90)),
    ],
)
def test_compiles_for_gpus_without_one(name, architectures, tmp_path):
    """PTX and machine code: what the interpreter cannot tell. No value spills to memory."""
    program = f"from tests.views.test_triton_compile import compiled as c; print(c({name!r}, {architectures}))"
    assert printed_by(program, tmp_path) == "no spills"


def compiled(name: str, architectures: tuple[int, ...]) -> str:
    """Every kernel that the case launches, for each architecture (90: compute capability 9.0)."""
    from fastres.views import triton_decide, triton_kernels

    launched = []

    class Grid:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *arguments, **named: launched.append((self.kernel, arguments, named))

    places = (triton_kernels, "views_kernel"), (triton_decide, "decide_kernel"), (triton_decide, "mix_kernel")
    for module, kernel in places:
        setattr(module, kernel, Grid(getattr(module, kernel)))
    os.environ["TRITON_INTERPRET"] = "1"  # only for the check of the device: nothing is run
    make(name, "cpu")
    del os.environ["TRITON_INTERPRET"]
    found = {compiled_for(target, *launch) for target in architectures for launch in launched}
    return "; ".join(sorted(found))


def compiled_for(architecture: int, kernel, arguments: tuple, named: dict) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    target = GPUTarget("cuda", architecture, 32)
    options = {key: named[key] for key in ("num_warps", "enable_fp_fusion") if key in named}
    named = {key: value for key, value in named.items() if key not in options}
    kinds = {
        torch.uint8: "*u8",
        torch.int64: "*i64",
        torch.int32: "*i32",
        torch.float32: "*fp32",
        torch.float64: "*fp64",
        torch.bfloat16: "*bf16",
        torch.float16: "*fp16",
    }
    signature, aligned = {}, {}
    for i, (argument, value) in enumerate(zip(kernel.arg_names, arguments)):
        signature[argument] = kinds[value.dtype] if isinstance(value, torch.Tensor) else "i64"
        if isinstance(value, torch.Tensor):
            aligned[(i,)] = [["tt.divisibility", 16]]
    constants = {(kernel.arg_names.index(key),): value for key, value in named.items()}
    signature |= dict.fromkeys(named, "constexpr")
    source = ASTSource(kernel, signature, constants, aligned)
    ours = usage(triton.compile(source, target=target, options=options).asm["cubin"])
    # CUDA's cosine keeps an array for large arguments: 32 bytes of stack under Triton 3.8, none under 3.9
    cosine = ASTSource(one_cosine(), {"x": "*fp32", "y": "*fp32"}, {}, {})
    least = usage(triton.compile(cosine, target=target).asm["cubin"])
    stacks = [int(re.search(r"STACK:(\d+)", said)[1]) for said in (ours, least)]
    spills = stacks[0] > stacks[1] or "LOCAL:0" not in ours
    return f"{kernel.__name__} sm_{architecture}: {ours} {least}" if spills else "no spills"


def usage(cubin: bytes) -> str:
    """Registers, stack and local memory of a kernel, as cuobjdump says it."""
    import triton

    path = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    done = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True)
    return done.stdout + done.stderr


def one_cosine():
    """A kernel that does nothing else."""
    global tl  # a kernel sees its module's names only
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(x, y):
        i = tl.arange(0, 128)
        tl.store(y + i, tl.cos(tl.load(x + i)))

    return kernel
