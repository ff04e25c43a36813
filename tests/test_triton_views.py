"""The GPU kernel equals the definition: here through Triton's interpreter, in a process of its own (the interpreter
is chosen when Triton is imported); on a machine with a GPU also as it really runs, with a CUDA graph.
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres import views
from fastres.errors import MachineError
from fastres.geometry import Geometry
from fastres.schedule_types import ViewSettings
from fastres.views import TWELVE_VIEWS, TestPlan, TrainPlan

pytest.importorskip("triton", reason="Triton is not installed")

SEED = (0xFEDC << 48) + 5  # more than 63 bits
EXTREME = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "lighting": 1.0}
HALF_PIXEL = {"convention": "half-pixel"}


def train(side, upscale, count, dtype=torch.float32, channels=3, **settings):
    settings = ViewSettings(impl="triton", **settings)
    plan = TrainPlan(
        geometry=Geometry(side, upscale), settings=settings, seed=SEED, stage=1, epoch=3, dtype=dtype, channels=channels
    )
    return plan, count


def fixed(side, upscale, count, which=slice(None), dtype=torch.float32, **settings):
    settings = ViewSettings(impl="triton", **settings)
    return TestPlan(geometry=Geometry(side, upscale), settings=settings, views=TWELVE_VIEWS[which], dtype=dtype), count


CASES = {  # what each probes: (plan, number of samples)
    "training shape": train(64, 4, 1),  # several blocks of columns and of rows
    "training shape, half-pixel": train(64, 4, 1, **HALF_PIXEL),
    "after size adaptation": train(64, 1, 2),
    "smallest": train(8, 1, 6),
    "smallest, enlarged": train(8, 2, 4),
    "odd side of the crop": train(24, 1, 3, **HALF_PIXEL),
    "upscale 3": train(16, 3, 2),
    "side not a power of two": train(40, 2, 1, **HALF_PIXEL),
    "extreme": train(8, 2, 12, **EXTREME),
    "no augmentation": train(8, 1, 3, brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0, flip=0.0),
    "always mirrored": train(8, 2, 3, flip=1.0),
    "bfloat16": train(16, 2, 3, dtype=torch.bfloat16),
    "float16": train(16, 2, 3, dtype=torch.float16),
    "four channels": train(16, 2, 2, channels=4),
    "four channels, no resampling": train(8, 1, 2, channels=4, dtype=torch.bfloat16),
    "twelve views": fixed(8, 2, 2),
    "twelve views, no resampling": fixed(16, 1, 1),
    "twelve views, shrinking with antialias": fixed(16, 1, 1, **HALF_PIXEL),
    "test shape": fixed(64, 4, 1, slice(7, 11, 3)),  # top right mirrored, and full
}
LARGE = ["training shape", "training shape, half-pixel", "test shape"]  # most of a minute in the interpreter
HALF_BITS = {torch.float32: None, torch.bfloat16: 8, torch.float16: 11}


def inputs(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(side)
    images = torch.from_numpy(rng.integers(0, 256, (count + 2, side, side, 3), dtype=np.uint8))
    images[0], images[-1, ..., 0] = 0, 255
    rows = torch.arange(count).flip(0) + 2
    return images, rows, rows * 7919 + 11


def make(name: str, device: str) -> torch.Tensor:
    plan, count = CASES[name]
    images, rows, ids = (tensor.to(device) for tensor in inputs(count, plan.geometry.side))
    out = views.apply(images, rows, ids, plan)
    assert out.is_contiguous(memory_format=torch.channels_last) and out.dtype == plan.dtype
    return out.cpu()


def check(name: str, ours: torch.Tensor, cut: bool = False) -> None:
    """`cut`: a bfloat16 may be a whole unit in the last place off, not half."""
    plan, count = CASES[name]
    images, rows, ids = inputs(count, plan.geometry.side)
    settings = replace(plan.settings, impl="reference")
    truth = views.apply(images, rows, ids, replace(plan, settings=settings, dtype=torch.float64))
    assert ours.shape == truth.shape
    allowed = torch.full_like(truth, 2e-6 * max(1.0, truth.abs().max().item()))
    if bits := HALF_BITS[plan.dtype]:
        allowed += 2.0 ** (torch.frexp(truth).exponent.clamp(min=-13) - bits - int(not cut))
    assert ((ours - truth).abs() <= allowed).all()


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict[str, torch.Tensor]:
    return interpret(tmp_path_factory.mktemp("triton") / "outputs.pt", [name for name in CASES if name not in LARGE])


@pytest.fixture(scope="module")
def interpreted_large(tmp_path_factory) -> dict[str, torch.Tensor]:
    return interpret(tmp_path_factory.mktemp("triton") / "large.pt", LARGE)


def interpret(path: Path, names: list[str]) -> dict[str, torch.Tensor]:
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, __file__, str(path), *names],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)},
        check=True,
        timeout=250,
    )
    return torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_shapes_equal_the_definition_in_the_interpreter(name, interpreted_large):
    check(name, interpreted_large[name])


@pytest.mark.parametrize("name", [name for name in CASES if name not in LARGE])
def test_equals_the_definition_in_the_interpreter(name, interpreted):
    # the interpreter cuts where a GPU rounds to bfloat16 (F2FP.BF16 in the compiled code)
    check(name, interpreted[name], cut=CASES[name][0].dtype == torch.bfloat16)


def test_an_epoch_of_draws_is_that_of_draw_py(interpreted):
    """Integers bit for bit; factors exactly; lighting to float32's rounding."""
    plan, _ = CASES["extreme"]
    drawn = interpreted["draws"].numpy()
    draws = plan.draws(np.arange(len(drawn)))
    assert np.array_equal(drawn[:, :4], np.stack([draws.top, draws.left, draws.flip, draws.order], axis=1))
    np.testing.assert_allclose(drawn[:, 4:7], draws.factors, rtol=1e-15)
    np.testing.assert_allclose(drawn[:, 7:], draws.lighting, atol=2e-6)


def test_the_device_key_follows_the_plan(interpreted):
    """Another epoch through the same tensor of seed, stage and epoch gives another view, and back again the first."""
    first, second, again = interpreted["epochs"]
    assert not torch.equal(first, second) and torch.equal(first, again)


def test_without_a_gpu_it_says_so():
    plan, count = CASES["smallest"]
    with pytest.raises(MachineError, match="needs a GPU"):
        views.apply(*inputs(count, 8), plan)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training shape", "after size adaptation", "bfloat16", "twelve views"])
def test_compiles_for_an_h200_without_one(name, tmp_path):
    """PTX and machine code for compute capability 9.0: what the interpreter cannot tell. No value spills to memory."""
    program = (
        "import sys; sys.path.insert(0, 'tests'); import test_triton_views as t\n"
        f"print(t.compiled_for_hopper({name!r}))"
    )
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition_on_the_device(name):
    check(name, make(name, "cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_captured_graph_serves_every_epoch():
    from fastres.views import triton_views

    plan, count = CASES["training shape"]
    images, rows, ids = (tensor.cuda() for tensor in inputs(count, 64))
    out = views.apply(images, rows, ids, plan)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        views.apply(images, rows, ids, plan, out=out)
    for epoch in (4, 3, 9):
        later = replace(plan, epoch=epoch)
        triton_views.set_key(later, images.device)
        graph.replay()
        torch.cuda.synchronize()
        settings = replace(plan.settings, impl="reference")
        truth = views.apply(images, rows, ids, replace(later, settings=settings))
        assert (out - truth).abs().max() <= 2e-6 * max(1.0, truth.abs().max().item()) + 1e-6


def epochs_in_the_interpreter() -> torch.Tensor:
    plan, count = CASES["smallest"]
    made = [views.apply(*inputs(count, 8), replace(plan, epoch=epoch)) for epoch in (3, 4, 3)]
    return torch.stack(made)


if __name__ == "__main__":
    import triton
    import triton.language as tl

    from fastres.views.triton_chance import draw
    from fastres.views.triton_views import set_key

    @triton.jit
    def draw_kernel(key, widths, flip_below, out, ROOM: tl.constexpr):
        """One program per id: its draw through the kernel's own function, into f64 [n, 10]."""
        at = out + 10 * tl.program_id(0)
        top, left, flip, order, f0, f1, f2, l0, l1, l2 = draw(tl.program_id(0), key, ROOM + 1, flip_below, widths)
        tl.store(at, top.to(tl.float64))
        tl.store(at + 1, left.to(tl.float64))
        tl.store(at + 2, flip.to(tl.float64))
        tl.store(at + 3, order.to(tl.float64))
        tl.store(at + 4, f0)
        tl.store(at + 5, f1)
        tl.store(at + 6, f2)
        tl.store(at + 7, l0.to(tl.float64))
        tl.store(at + 8, l1.to(tl.float64))
        tl.store(at + 9, l2.to(tl.float64))

    torch.set_num_threads(1)
    outputs = {name: make(name, "cpu") for name in sys.argv[2:]}
    drawn = torch.zeros(64, 10, dtype=torch.float64)
    key, widths = set_key(CASES["extreme"][0], torch.device("cpu")), torch.ones(4, dtype=torch.float64)
    draw_kernel[(len(drawn),)](key, widths, 1 << 31, drawn, ROOM=CASES["extreme"][0].geometry.room)
    torch.save({**outputs, "draws": drawn, "epochs": epochs_in_the_interpreter()}, sys.argv[1])
