"""The GPU kernel equals the definition: here through Triton's interpreter, in a process of its own (the interpreter
is chosen when Triton is imported); on a machine with a GPU also as it really runs, with a CUDA graph.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres import views
from fastres.errors import MachineError
from tests.triton_cases import CASES, LARGE, check, inputs, make

pytest.importorskip("triton", reason="Triton is not installed")


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
