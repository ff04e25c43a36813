"""The CPU kernel equals the definition for every draw, writes where it is told, allocates nothing, survives threads."""

import ctypes
import gc
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres import views
from fastres.machine.errors import MachineError, UsageError
from fastres.schedules.types import ViewSettings
from fastres.schedules.view_settings import VIEW_IMPLS
from fastres.views import numba_chance, numba_copies
from fastres.views.geometry import Geometry
from fastres.views.numba_tables import chance_of, decisions
from fastres.views.resample import CONVENTIONS
from tests.support.augmented import AUGMENTED
from tests.support.augmented import plan_of as augmented
from tests.support.view_bound import bound
from tests.support.view_plans import bytes_of, plan_of

GEOMETRIES = [(64, 4), (64, 1), (32, 4), (32, 1), (8, 1), (8, 4), (40, 3), (24, 2), (64, 0.5), (96, 1 / 3), (32, 1.5)]
EXTREME = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "lighting": 1.0}


def definition(images, rows, ids, plan) -> torch.Tensor:
    """The same plan by reference.py, float64."""
    return views.apply(
        images, rows, ids, replace(plan, settings=replace(plan.settings, impl="reference"), dtype=torch.float64)
    )


@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("side,upscale", GEOMETRIES)
def test_equals_the_definition(side, upscale, convention, kind):
    """float32: see view_bound. bfloat16: half a unit in the last of its 8 bits more."""
    count = 2 if kind == "test" else 5 if side * upscale > 200 else 24
    images, ids = bytes_of(count + 3, side), torch.arange(count) * 7919 + 11
    rows = torch.arange(count).flip(0) + 3
    plan = plan_of(kind, Geometry(side, upscale), convention=convention)
    truth = definition(images, rows, ids, plan)
    allowed = bound(images, rows, ids, plan)
    ours = views.apply(images, rows, ids, plan)
    assert ours.shape == truth.shape and ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ((ours - truth).abs() <= allowed).all()
    half = views.apply(images, rows, ids, replace(plan, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and half.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(half, ours.to(torch.bfloat16))  # torch rounds to nearest even: so do we, in every case
    spacing = 2.0 ** (torch.frexp(truth).exponent - 8)  # of bfloat16 numbers of this size
    assert ((half - truth).abs() <= spacing / 2 + allowed).all()


@pytest.mark.parametrize("name", AUGMENTED)
@pytest.mark.parametrize(
    "side,upscale,channels", [(64, 4, 3), (64, 1, 3), (16, 2, 4), (24, 1, 4), (8, 1, 3), (96, 0.25, 3)]
)
def test_what_the_paper_has_not_equals_the_definition(side, upscale, channels, name):
    count = 5 if side * upscale > 200 else 25
    images, ids = bytes_of(count + 3, side), torch.arange(count) * 7919 + 11
    rows = torch.arange(count).flip(0) + 3
    plan = augmented(name, Geometry(side, upscale), "numba", channels=channels)
    three = replace(plan, channels=3)
    ours, truth, allowed = (
        views.apply(images, rows, ids, plan),
        definition(images, rows, ids, three),
        bound(images, rows, ids, three),
    )
    assert ((ours[:, :3] - truth).abs() <= allowed).all()
    half = views.apply(images, rows, ids, replace(plan, dtype=torch.bfloat16))
    spacing = 2.0 ** (torch.frexp(truth).exponent - 8)  # rounded once, whatever is mixed
    assert ((half[:, :3] - truth).abs() <= spacing / 2 + allowed).all()
    assert not ours[:, 3:].any() and not half[:, 3:].any()


@pytest.mark.parametrize("name", ["everything", "both", "nearly whole"])
def test_boxes_and_mixtures_are_those_of_numpy(name):
    plan, ids = augmented(name, Geometry(64, 1), "numba"), np.r_[np.arange(20_000), 2**32 - 1 - np.arange(100)]
    chance, made = chance_of(plan), decisions(len(ids), 56, 5)
    if chance.boxes:
        numba_chance.draw_boxes(ids, *chance.boxes, np.empty(2), made.boxes)
        np.testing.assert_allclose(made.boxes, plan.boxes(ids), rtol=1e-12, atol=1e-12)
    if chance.erased:
        numba_chance.draw_erased(ids, *chance.erased, np.empty(2), made.erased)
        assert np.array_equal(made.erased, plan.erased(ids)) and made.erased.any()
    if chance.mixtures:
        numba_chance.draw_mixtures(ids, *chance.mixtures, *made.mixtures)
        truth = plan.mixtures(ids)
        for ours, theirs in zip(made.mixtures, (truth.kind, truth.own, truth.patch), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_row_wider_than_a_tile_equals_the_definition(flip):
    """What is not resampled is made in tiles: 777 numbers a row, 784 with a fourth channel; either way round."""
    for side, channels in (296, 3), (224, 4):
        images, rows = bytes_of(3, side), torch.tensor([2, 0])
        plan = plan_of("train", Geometry(side, 1), channels=channels, flip=flip)
        assert plan.geometry.crop * channels > numba_copies.TILE
        ours = views.apply(images, rows, rows, plan)
        three = replace(plan, channels=3)
        truth, allowed = definition(images, rows, rows, three), bound(images, rows, rows, three)
        assert ((ours[:, :3] - truth).abs() <= allowed).all() and not ours[:, 3:].any()
        half = views.apply(images, rows, rows, replace(plan, dtype=torch.bfloat16))
        assert torch.equal(half, ours.to(torch.bfloat16))


@pytest.mark.parametrize("side,upscale", [(64, 4), (16, 1)])
def test_equals_the_definition_at_the_extremes(side, upscale):
    """Factors from 0 to 2 in every order, strong lighting, black, white and saturated images."""
    count = 12 if side == 64 else 96
    images = bytes_of(count, side)
    images[0], images[1], images[2, ..., 0] = 0, 255, 255
    rows = torch.arange(count)
    plan = plan_of("train", Geometry(side, upscale), **EXTREME)
    truth = definition(images, rows, rows, plan)
    ours = views.apply(images, rows, rows, plan)
    assert ((ours - truth).abs() <= bound(images, rows, rows, plan)).all()


@pytest.mark.parametrize("settings", [{}, EXTREME, {"flip": 0.0}, {"flip": 1.0}])
def test_draws_are_those_of_draw_py(settings):
    plan = plan_of("train", Geometry(64, 4), **settings)
    ids = np.r_[np.arange(20_000), 2**32 - 1 - np.arange(100)]
    places, reals = np.empty((len(ids), 4), np.int64), np.empty((len(ids), 6))
    numba_chance.draw_range(ids, *chance_of(plan).every, places, reals)
    draws = plan.draws(ids)
    expected = np.stack([draws.top, draws.left, draws.flip, draws.order], axis=1)
    assert np.array_equal(places, expected)
    np.testing.assert_allclose(reals, np.hstack([draws.factors, draws.lighting]), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("impl", ["numba", "torch", "reference"])
@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize("upscale", [1, 2])
def test_a_fourth_channel_of_zeros(kind, upscale, impl):
    images, rows = bytes_of(4, 16), torch.tensor([2, 0, 3])
    three = views.apply(images, rows, rows, plan_of(kind, Geometry(16, upscale), impl=impl))
    plan = plan_of(kind, Geometry(16, upscale), channels=4, impl=impl)
    dirty = torch.full((len(three), 4, *three.shape[2:]), 7.0).contiguous(memory_format=torch.channels_last)
    four = views.apply(images, rows, rows, plan, out=dirty)
    assert four.data_ptr() == dirty.data_ptr()
    assert torch.equal(four[:, :3], three) and not four[:, 3].any()


def resident_bytes() -> int:
    """What this process holds now, after the allocator has given back what is free: not a high-water mark."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("upscale", [1, 4])
def test_steady_state_writes_into_out_and_allocates_nothing(upscale):
    """A hundred batches into `out`: no NumPy memory beyond crumbs, none more in the process, unlike ten without."""
    images = bytes_of(300, 32)
    plan = plan_of("train", Geometry(32, upscale))
    batches = torch.arange(300).split(100)
    out = views.apply(images, batches[0], batches[0], plan)  # 0.9 MB, or 15 MB

    def grown_by(work) -> int:
        for rows in batches * 2:  # pages that the trim gave back are touched again before they count
            views.apply(images, rows, rows, plan, out=out)
        before = resident_bytes()
        work()
        return resident_bytes() - before

    def steady() -> None:
        for rows in batches * 33:
            assert views.apply(images, rows, rows, plan, out=out).data_ptr() == out.data_ptr()

    kept = []

    def keeping() -> None:
        kept.extend(views.apply(images, rows, rows, plan) for rows in (batches * 4)[:10])

    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        steady()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - start < 64 << 10, "one image of float32 is 9 kB or more"
    assert grown_by(steady) < 1 << 20, "one batch kept by every call would be 93 MB or more"
    assert grown_by(keeping) > 9 * out.nbytes, "this measurement must see ten batches that are kept"


def test_out_must_fit():
    images, rows = bytes_of(2, 16), torch.arange(2)
    plan = plan_of("train", Geometry(16, 2))
    fit = views.apply(images, rows, rows, plan)
    for unfit in (fit[:1], fit.contiguous(), fit.double(), torch.empty(2, 3, 28, 28)):
        with pytest.raises(ValueError, match="channels-last"):
            views.apply(images, rows, rows, plan, out=unfit)


@pytest.mark.parametrize("impl", VIEW_IMPLS)
def test_no_samples_give_no_views(impl):
    empty = torch.zeros(0, dtype=torch.int64)
    assert views.apply(bytes_of(1, 16), empty, empty, plan_of("train", Geometry(16, 2), impl=impl)).shape[0] == 0


def test_one_list_of_implementations():
    assert ("auto", *views._IMPLEMENTATIONS) == VIEW_IMPLS
    with pytest.raises(UsageError, match="auto, numba, triton, torch, reference"):
        ViewSettings(impl="nimba")


def test_the_choice_is_by_device_and_dtype():
    cpu, cuda, mps = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
    plan = plan_of("train", Geometry(16, 1), impl="auto")
    assert [views.chosen(plan, device) for device in (cpu, cuda, mps)] == ["numba", "triton", "torch"]
    assert views.chosen(replace(plan, dtype=torch.float16), cpu) == "torch"
    rows = torch.arange(2)
    assert views.apply(bytes_of(2, 16), rows, rows, replace(plan, dtype=torch.float16)).dtype == torch.float16
    with pytest.raises(UsageError, match="not torch.float16"):
        views.apply(bytes_of(2, 16), rows, rows, plan_of("train", Geometry(16, 1), dtype=torch.float16))
    with pytest.raises(MachineError, match="works on the CPU"):
        views.apply(bytes_of(2, 16).to("meta"), rows.to("meta"), rows.to("meta"), plan_of("test", Geometry(16, 1)))
