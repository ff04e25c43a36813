"""The Triton kernels compiled for sm_90 on a machine without a GPU: they fit its registers, nothing spills."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.triton_cases import make

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training shape", "after size adaptation", "bfloat16", "twelve views"])
def test_compiles_for_an_h200_without_one(name, tmp_path):
    """PTX and machine code for compute capability 9.0: what the interpreter cannot tell. No value spills to memory."""
    program = f"from tests.test_triton_compile import compiled_for_hopper as c; print(c({name!r}))"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "no spills"


def compiled_for_hopper(name: str) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastres.views import triton_kernels

    launched = {}

    class Grid:
        def __getitem__(self, grid):
            return lambda *arguments, **named: launched.update(arguments=arguments, named=named)

    kernel, triton_kernels.views_kernel = triton_kernels.views_kernel, Grid()
    os.environ["TRITON_INTERPRET"] = "1"  # only for the check of the device: nothing is run
    make(name, "cpu")
    del os.environ["TRITON_INTERPRET"]
    named = launched["named"]
    options = {key: named.pop(key) for key in ("num_warps", "enable_fp_fusion")}
    kinds = {
        torch.uint8: "*u8", torch.int64: "*i64", torch.int32: "*i32", torch.float32: "*fp32", torch.float64: "*fp64",
        torch.bfloat16: "*bf16", torch.float16: "*fp16",
    }  # fmt: skip
    signature, aligned = {}, {}
    for i, (argument, value) in enumerate(zip(kernel.arg_names, launched["arguments"])):
        signature[argument] = kinds[value.dtype] if isinstance(value, torch.Tensor) else "i64"
        if isinstance(value, torch.Tensor):
            aligned[(i,)] = [["tt.divisibility", 16]]
    constants = {(kernel.arg_names.index(key),): value for key, value in named.items()}
    signature |= dict.fromkeys(named, "constexpr")
    source = ASTSource(kernel, signature, constants, aligned)
    ours = usage(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"])
    # CUDA's cosine keeps an array for large arguments: 32 bytes of stack under Triton 3.8, none under 3.9
    cosine = ASTSource(one_cosine(), {"x": "*fp32", "y": "*fp32"}, {}, {})
    least = usage(triton.compile(cosine, target=GPUTarget("cuda", 90, 32)).asm["cubin"])
    stacks = [int(re.search(r"STACK:(\d+)", said)[1]) for said in (ours, least)]
    return "no spills" if stacks[0] <= stacks[1] and "LOCAL:0" in ours else ours + least


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
