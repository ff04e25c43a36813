"""Views: the torch version equals the definition for every draw; resampling, colour and chance equal outside truths."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from fastres import views
from fastres.machine.errors import UsageError
from fastres.schedules.types import ViewSettings
from fastres.views import TWELVE_VIEWS, TestPlan, TrainPlan, colour
from fastres.views.geometry import Geometry
from fastres.views.resample import CONVENTIONS, matrix
from fastres.views.tables import band
from tests.support.view_bound import bound

GEOMETRIES = [(64, 4), (64, 1), (32, 4), (32, 1), (8, 1), (40, 3), (24, 2), (64, 0.5)]


def bytes_of(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def both(images, plan, ids=None):
    """The same plan through the reference (float64) and the torch implementation, [n, 3, H, H]."""
    ids = np.arange(len(images)) if ids is None else ids
    out = []
    for impl in ("reference", "torch"):
        settings = ViewSettings(**{**plan.settings.__dict__, "impl": impl})
        dtype = torch.float64 if impl == "reference" else plan.dtype
        chosen = type(plan)(**{**plan.__dict__, "settings": settings, "dtype": dtype})
        out.append(views.apply(torch.from_numpy(images), torch.arange(len(images)), torch.from_numpy(ids), chosen))
    return out


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("side,upscale", GEOMETRIES)
def test_training_views_equal_the_definition(side, upscale, convention):
    plan = TrainPlan(
        geometry=Geometry(side, upscale), settings=ViewSettings(convention=convention), seed=5, stage=1, epoch=3
    )
    count = 6 if side * upscale > 200 else 24
    images, ids = bytes_of(count, side), np.arange(count) * 7919 + 11
    truth, ours = both(images, plan, ids)
    assert ours.shape == (count, 3, plan.geometry.crop, plan.geometry.crop)
    assert ((ours - truth).abs() <= bound(*map(torch.from_numpy, (images, np.arange(count), ids)), plan)).all()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("side,upscale", GEOMETRIES)
def test_twelve_views_equal_the_definition(side, upscale, convention):
    plan = TestPlan(geometry=Geometry(side, upscale), settings=ViewSettings(convention=convention), views=TWELVE_VIEWS)
    images, ids = bytes_of(2, side), np.arange(2)
    truth, ours = both(images, plan)
    assert ours.shape == (24, 3, plan.geometry.crop, plan.geometry.crop)
    assert ((ours - truth).abs() <= bound(*map(torch.from_numpy, (images, ids, ids)), plan)).all()


def test_extreme_jitter_equals_the_definition_in_every_order():
    """All six orders at the corners of the factors, black, white and saturated images."""
    rng = np.random.default_rng(0)
    corner = np.array(list(itertools.product((0.6, 1.4), repeat=3)))
    factors, order = np.repeat(corner, 6, axis=0), np.tile(np.arange(6), 8)
    lighting = rng.normal(0, 0.3, (48, 3))
    pixels = rng.integers(0, 256, (48, 5, 4, 3)).astype(np.float64)
    pixels[0], pixels[1], pixels[2, ..., 0] = 0, 255, 255
    matrices, offsets = colour.compose(pixels.mean((1, 2)), factors, order, lighting)
    from fastres.views.reference import jitter

    for i in range(48):
        stepwise = pixels[i] / 255
        for kind in colour.JITTER_ORDERS[order[i]]:
            stepwise = jitter(stepwise, kind, factors[i, kind])
        stepwise = stepwise + (colour.EIGENVECTORS * lighting[i] * colour.EIGENVALUES).sum(1)
        stepwise = (stepwise - colour.MEAN) / colour.STD
        np.testing.assert_allclose(pixels[i] @ matrices[i].T + offsets[i], stepwise, atol=1e-11)


def test_jitter_agrees_with_torchvision_where_nothing_clamps():
    """torchvision clamps to [0, 1] and we do not: mid-gray images and small factors stay inside."""
    from torchvision.transforms.v2 import functional as tv

    from fastres.views.reference import jitter

    image = np.random.default_rng(1).uniform(0.4, 0.6, (8, 8, 3))
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for kind, theirs in enumerate((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)):
        expected = theirs(tensor, 1.2).permute(1, 2, 0).numpy()
        # torchvision's gray weights are 0.2989, 0.587, 0.114
        np.testing.assert_allclose(jitter(image, kind, 1.2), expected, atol=1e-4)


@pytest.mark.parametrize("src,dst", [(64, 256), (64, 224), (64, 56), (32, 28), (7, 3), (13, 31), (9, 9)])
def test_half_pixel_is_pil_bicubic(src, dst):
    """Level for level, once PIL's own roundings are put in: weights in 22 bits, bytes after each of its two passes."""
    image = np.random.default_rng(2).integers(0, 256, (src, src, 3), dtype=np.uint8)
    pil = np.asarray(Image.fromarray(image).resize((dst, dst), Image.Resampling.BICUBIC))
    resize = np.rint(matrix(src, dst, "half-pixel") * 2**22) / 2**22
    across = np.clip(np.floor(np.einsum("stc,wt->swc", image, resize) + 0.5), 0, 255)
    ours = np.clip(np.floor(np.einsum("hs,swc->hwc", resize, across) + 0.5), 0, 255)
    assert np.array_equal(ours, pil)


def image_scale_torch7(line: list[float], size: int) -> list[float]:
    """FACTS written again, one sample at a time: align corners, cubic through p0..p3, linear beyond the edges."""
    n, out = len(line), []
    for i in range(size):
        if i == size - 1:
            out.append(line[-1])
            continue
        x = i * (n - 1) / (size - 1)
        k, t = int(np.floor(x)), x - np.floor(x)
        p1, p2 = line[k], line[k + 1]
        p0 = line[k - 1] if k > 0 else 2 * p1 - p2
        p3 = line[k + 2] if k + 2 < n else 2 * p2 - p1
        a, b, c = 0.5 * (-p0 + 3 * p1 - 3 * p2 + p3), 0.5 * (2 * p0 - 5 * p1 + 4 * p2 - p3), 0.5 * (p2 - p0)
        out.append(((a * t + b) * t + c) * t + p1)
    return out


@pytest.mark.parametrize("src,dst", [(64, 256), (64, 224), (64, 56), (7, 3), (5, 17), (2, 9)])
def test_torch7_is_image_scale(src, dst):
    line = np.random.default_rng(3).normal(size=src)
    np.testing.assert_allclose(matrix(src, dst, "torch7") @ line, image_scale_torch7(list(line), dst), atol=1e-12)


def test_torch7_shrinks_seven_taps_to_zero_three_six():
    assert np.array_equal(matrix(7, 3, "torch7"), np.eye(7)[[0, 3, 6]])


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("src,dst", [(64, 256), (64, 56), (64, 64), (1, 5), (8, 7), (2, 2), (3, 1)])
def test_rows_of_the_matrix_sum_to_one(src, dst, convention):
    np.testing.assert_allclose(matrix(src, dst, convention).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("wider", [0, 6])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("src,dst", [(64, 256), (64, 56), (64, 64), (64, 7), (40, 120), (8, 32), (8, 7), (8, 8)])
def test_the_band_is_the_matrix(src, dst, convention, wider):
    """Every entry in float32, none outside the image, and first samples that never fall."""
    dense = matrix(src, dst, convention)
    first, weight = band(src, dst, convention, wider)
    width = weight.shape[1]
    assert first.shape == (dst,) and weight.dtype == np.float32
    assert width >= max(4, wider) or (width == 1 and src == dst and not wider)
    assert first.min() >= 0 and first.max() + width <= src and (np.diff(first) >= 0).all()
    rebuilt = np.zeros_like(dense, dtype=np.float32)
    for row in range(dst):
        rebuilt[row, first[row] : first[row] + width] = weight[row]
    assert np.array_equal(rebuilt, dense.astype(np.float32))


def test_mirror_twice_is_identity_and_mirrors_are_mirrors():
    plan = TestPlan(geometry=Geometry(32, 4), settings=ViewSettings(), views=TWELVE_VIEWS)
    images = torch.from_numpy(bytes_of(1, 32))
    out = views.apply(images, torch.tensor([0]), torch.tensor([0]), plan)
    names = [v.name for v in TWELVE_VIEWS]
    for name in names:
        if not name.endswith("'"):
            plain, mirror = out[names.index(name)], out[names.index(name + "'")]
            # the mirror of "top left" is the top left crop, mirrored
            torch.testing.assert_close(mirror.flip(-1), plain, atol=1e-5, rtol=0)
    # the twelve views of the mirrored image are the same twelve with corners swapped
    swapped = views.apply(images.flip(2), torch.tensor([0]), torch.tensor([0]), plan)
    torch.testing.assert_close(swapped[names.index("top left")], out[names.index("top right'")], atol=1e-5, rtol=0)


def test_crop_offsets_are_the_papers():
    geometry = Geometry(64, 4)
    assert (geometry.resized, geometry.crop, geometry.room) == (256, 224, 32)
    assert TWELVE_VIEWS[0].offset(geometry) == (16, 16)
    assert TWELVE_VIEWS[4].offset(geometry) == (32, 32)
    assert Geometry(64, 1).crop == 56 and TWELVE_VIEWS[0].offset(Geometry(64, 1)) == (4, 4)
    with pytest.raises(UsageError, match="multiple of 8"):
        Geometry(63, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_output_layout_and_dtype(dtype, impl):
    for plan in (
        TrainPlan(geometry=Geometry(16, 2), settings=ViewSettings(impl=impl), seed=0, stage=0, epoch=1, dtype=dtype),
        TestPlan(geometry=Geometry(16, 2), settings=ViewSettings(impl=impl), views=TWELVE_VIEWS, dtype=dtype),
    ):
        images = torch.from_numpy(bytes_of(5, 16))
        rows = torch.tensor([4, 0, 2])
        out = views.apply(images, rows, torch.tensor([4, 0, 2]), plan)
        assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
        gathered = views.apply(images[rows], torch.arange(3), torch.tensor([4, 0, 2]), plan)
        assert torch.equal(out, gathered)


def test_a_views_result_does_not_depend_on_its_batch():
    plan = TrainPlan(geometry=Geometry(32, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1)
    images, ids = torch.from_numpy(bytes_of(9, 32)), torch.arange(9)
    whole = views.apply(images, ids, ids, plan)
    single = torch.cat([views.apply(images, ids[i : i + 1], ids[i : i + 1], plan) for i in range(9)])
    torch.testing.assert_close(whole, single, atol=5e-6, rtol=0)
