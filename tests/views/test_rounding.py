"""What float32 may round, up to 256 pixels a side and on the images that are worst for it; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastres import views
from fastres.machine.errors import UsageError
from fastres.schedules.view_settings import VIEW_IMPLS
from fastres.views import TestView
from fastres.views.geometry import Geometry
from fastres.views.resample import CONVENTIONS
from tests.support.view_bound import bound
from tests.support.view_plans import bytes_of, plan_of

LARGE = [(96, 1), (128, 1), (200, 1), (256, 1), (96, 2)]
EXTREME = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "lighting": 1.0}
HERE = [impl for impl in VIEW_IMPLS if impl not in ("auto", "triton")]  # Triton: test_triton_views.py


def worst(side: int) -> torch.Tensor:
    """Where every addition of a sum rounds the same way: images of one colour, and one of stripes."""
    images = torch.full((5, side, side, 3), 255, dtype=torch.uint8)
    images[1], images[2], images[3, ..., 0], images[4, ::2] = 254, 200, 0, 0
    return images


def error(impl: str, images, rows, plan) -> torch.Tensor:
    """By output, as a part of what the definition's bound allows."""
    settings = replace(plan.settings, impl="reference")
    truth = views.apply(images, rows, rows, replace(plan, settings=settings, dtype=torch.float64))
    ours = views.apply(images, rows, rows, replace(plan, settings=replace(plan.settings, impl=impl)))
    return (ours - truth).abs() / bound(images, rows, rows, plan)


@pytest.mark.fault(46)
@pytest.mark.parametrize("impl", ["numba", "torch"])
@pytest.mark.parametrize("settings", [{}, EXTREME], ids=["paper", "extreme"])
@pytest.mark.parametrize("side,upscale", LARGE)
def test_training_views_of_large_sides(side, upscale, settings, impl):
    images = torch.cat([worst(side), bytes_of(1, side)])
    for convention in CONVENTIONS if upscale > 1 else CONVENTIONS[:1]:
        plan = plan_of("train", Geometry(side, upscale), convention=convention, **settings)
        assert error(impl, images, torch.arange(6).repeat(1 if upscale > 1 else 3), plan).max() <= 1


@pytest.mark.fault(46)
@pytest.mark.parametrize("impl", ["numba", "torch"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("side", [96, 256])
def test_fixed_views_of_large_sides(side, convention, impl):
    plan = plan_of("test", Geometry(side, 1), convention=convention)
    plan = replace(plan, views=(plan.views[2], plan.views[-1]))  # a corner, and the whole image mirrored
    assert error(impl, torch.cat([worst(side)[2:3], bytes_of(1, side)]), torch.arange(2), plan).max() <= 1


@pytest.mark.fault(46)
@pytest.mark.parametrize("side,most", [(64, 1.5e-5), (256, 4e-5)])
def test_the_bound_is_no_wider_than_rounding(side, most):
    """In the paper's settings and on noise: far less than the 1/58 or more that one level of a pixel is."""
    rows = torch.arange(4)
    assert bound(bytes_of(4, side), rows, rows, plan_of("train", Geometry(side, 1))).max() < most


@pytest.mark.fault(46)
def test_the_bound_grows_with_the_sum_of_weights():
    """Of one white image at one factor: by the mean's sums with the side, and by overshooting weights when enlarged."""
    rows, still = torch.zeros(1, dtype=torch.int64), {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}

    def largest(side: int, upscale: int, **settings) -> float:
        return bound(worst(side), rows, rows, plan_of("train", Geometry(side, upscale), **settings)).max().item()

    assert largest(256, 1) > 2 * largest(64, 1)
    assert largest(256, 1, **still) == pytest.approx(largest(64, 1, **still), rel=1e-3)
    assert largest(64, 2, **still) > 1.5 * largest(64, 1, **still)


@pytest.mark.fault(46)
@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("bad", [-1, 5, 1 << 40, -(1 << 62)])
@pytest.mark.parametrize("kind", ["train", "test"])
def test_a_row_outside_the_images_is_refused(kind, bad, impl):
    rows, plan = torch.tensor([0, bad, 1]), plan_of(kind, Geometry(16, 1), impl=impl)
    with pytest.raises(IndexError, match="1 of 3 rows are outside the 5 images"):
        views.apply(bytes_of(5, 16), rows, torch.arange(3), plan)


@pytest.mark.fault(46)
@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("bad", [-1, 1 << 32])
def test_an_id_that_is_no_word_is_refused(bad, impl):
    plan, rows = plan_of("train", Geometry(16, 1), impl=impl), torch.arange(3)
    views.apply(bytes_of(5, 16), rows, torch.tensor([0, (1 << 32) - 1, 1]), plan)
    with pytest.raises(IndexError, match=r"1 of 3 ids are outside 0 to 2\^32 - 1"):
        views.apply(bytes_of(5, 16), rows, torch.tensor([0, bad, 1]), plan)
    with pytest.raises(ValueError, match="one id for each row"):
        views.apply(bytes_of(5, 16), rows, rows[:2], plan)


@pytest.mark.fault(46)
@pytest.mark.parametrize("place", [(-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.0)])
def test_a_view_beside_the_image_is_refused(place):
    with pytest.raises(UsageError, match="expected 0 to 1 each"):
        TestView("aside", *place, False)
    assert np.isclose(TestView("corner", 1.0, 0.0, True).vertical, 1)
