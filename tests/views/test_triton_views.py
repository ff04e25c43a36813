"""The GPU kernel equals the definition: here through Triton's interpreter, in a process of its own (the interpreter
is chosen when Triton is imported); on a machine with a GPU also as it really runs, with a CUDA graph.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from fastres import views
from fastres.machine.errors import MachineError
from fastres.views import triton_blocks
from tests.support.triton_cases import CASES, LARGE, check, fixed, inputs, make, train
from tests.support.view_bound import bound

pytest.importorskip("triton", reason="Triton is not installed")
BLOCKS = "blocks"  # asks the interpreter for the views in several blocks, beside names of CASES


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict[str, torch.Tensor]:
    return interpret(tmp_path_factory.mktemp("triton") / "outputs.pt", [name for name in CASES if name not in LARGE])


@pytest.fixture(scope="module")
def interpreted_large(tmp_path_factory) -> dict[str, torch.Tensor]:
    return interpret(tmp_path_factory.mktemp("triton") / "large.pt", [*LARGE, BLOCKS])


def interpret(path: Path, names: list[str]) -> dict[str, torch.Tensor]:
    root = Path(__file__).parents[2]
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
    check(name, interpreted_large[name], cut=CASES[name][0].dtype == torch.bfloat16)


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


def test_rows_and_ids_out_of_range_are_refused_and_on_a_gpu_make_no_view(interpreted):
    assert interpreted["refused"].all(), interpreted["refused"]


def test_shares_of_mixed_views_are_those_of_mixing_py(interpreted):
    plan, count = CASES["everything"]
    truth = plan.mixtures(inputs(count, plan.geometry.side)[2].numpy()).own
    assert 0 < truth.min() < 1 and interpreted["shares"][0, :count].tolist() == [*truth.repeat(2).astype(np.float32), 1]
    assert (interpreted["shares"][1] == 1).all(), "of a plan without mixtures"


@pytest.mark.slow
def test_blocks_change_no_bit(interpreted_large):
    """So that a machine may choose them by their speed."""
    default, *others = interpreted_large["blocks"]
    assert len(others) == len(triton_blocks.CANDIDATES) - 1 and all(torch.equal(default, made) for made in others)


@pytest.mark.parametrize(("seconds", "wanted"), [(0.5, 3), (0.985, 0)])
def test_the_fastest_blocks_are_used_where_they_gain_enough(seconds, wanted):
    plan, other_plan = CASES["smallest"][0], CASES["odd side of the crop"][0]
    default, fast = triton_blocks.CANDIDATES[0], triton_blocks.CANDIDATES[3]
    try:
        found = triton_blocks.tune(plan, lambda: seconds if triton_blocks.blocks_of(plan) == fast else 1.0)
        assert found == triton_blocks.blocks_of(plan) == triton_blocks.CANDIDATES[wanted]
        assert triton_blocks.blocks_of(other_plan) == default
    finally:
        triton_blocks.use(plan, default)


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
        assert ((out - truth).abs().cpu() <= bound(images, rows, ids, later)).all()


def epochs_in_the_interpreter() -> torch.Tensor:
    plan, _ = CASES["smallest"]
    made = [views.apply(*inputs(1, 8), replace(plan, epoch=epoch)) for epoch in (3, 4, 3)]
    return torch.stack(made)


def shares_in_the_interpreter() -> torch.Tensor:
    """f32 [2, 6]: of a plan that mixes, five samples, and of one that does not, six."""
    shares = torch.full((2, 6), 7.0)
    for own, name in zip(shares, ("everything", "smallest"), strict=True):
        plan, count = CASES[name]
        views.apply(*inputs(count, plan.geometry.side), plan, own=own[:count])
    return shares


def blocks_in_the_interpreter() -> torch.Tensor:
    """A view of 42 rows of 168 numbers, which the candidates cut into one or two programs of one or two steps."""
    plan, count = train(24, 2, 1, channels=4)
    made = []
    for blocks in triton_blocks.CANDIDATES:
        triton_blocks.use(plan, blocks)
        made.append(views.apply(*inputs(count, 24), plan))
    return torch.stack(made)


def refusals_in_the_interpreter() -> torch.Tensor:
    """For rows and ids out of range: whether apply refuses them, and then whether the kernel alone, as on a GPU, makes
    NaN of those samples and of no other. bool [4, 2]."""
    found = []
    training, testing = CASES["smallest"][0], fixed(8, 1, 2, slice(6, 8))[0]  # which asks for two views of each
    count = 2  # of 4 images
    cases = (training, "rows", -1), (training, "rows", 4), (training, "ids", -1), (testing, "rows", 1 << 40)
    for plan, of, bad in cases:
        images, rows, ids = inputs(count, 8)
        out = views.apply(images, rows, ids, plan)
        expected = out.clone()
        (ids if of == "ids" else rows)[1] = bad
        try:
            refused = views.apply(images, rows, ids, plan) is None
        except IndexError:
            refused = True
        with mock.patch.object(views, "_check"):
            made = views.apply(images, rows, ids, plan)
        each = len(out) // count
        strange = torch.arange(len(out)) // each == 1
        marked = made[strange].isnan().all() and torch.equal(made[~strange], expected[~strange])
        found.append([refused, bool(marked)])
    return torch.tensor(found)


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
    outputs = {name: make(name, "cpu") for name in sys.argv[2:] if name != BLOCKS}
    if BLOCKS in sys.argv:
        outputs[BLOCKS] = blocks_in_the_interpreter()
    drawn = torch.zeros(64, 10, dtype=torch.float64)
    key, widths = set_key(CASES["extreme"][0], torch.device("cpu")), torch.ones(4, dtype=torch.float64)
    draw_kernel[(len(drawn),)](key, widths, 1 << 31, drawn, ROOM=CASES["extreme"][0].geometry.room)
    refused = refusals_in_the_interpreter()
    outputs |= {"shares": shares_in_the_interpreter()}
    outputs |= {"draws": drawn, "epochs": epochs_in_the_interpreter(), "refused": refused}
    torch.save(outputs, sys.argv[1])
