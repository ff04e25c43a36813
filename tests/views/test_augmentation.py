"""Resized crops, erasing, MixUp and CutMix: chance and pixels against torchvision, PIL and NumPy; torch's views against
the definition; what they depend on and what they do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fastres import views
from fastres.machine.errors import UsageError
from fastres.schedules import SCHEDULES
from fastres.schedules.loading import override
from fastres.schedules.types import Schedule, Stage, ViewSettings
from fastres.views import mixing
from fastres.views.boxes import crop_boxes, erased_boxes
from fastres.views.draw import Key
from fastres.views.geometry import Geometry
from fastres.views.mixing import CUTMIX, MIXUP, mixtures, quantiles, soft_labels
from fastres.views.reference import crop_box, mix
from tests.support.augmented import AUGMENTED, plan_of
from tests.support.view_bound import bound

KEY, MANY = Key(seed=3, stage=1, epoch=2), np.arange(20_000)


def same_law(ours: np.ndarray, theirs: np.ndarray, most: float) -> None:
    """Two samples of one distribution: the largest distance between their cumulative shares (Kolmogorov, Smirnov)."""
    at = np.sort(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < most


@pytest.mark.parametrize("scale,ratio", [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (0.3, 3.0)), ((1.0, 1.0), (1, 1))])
def test_resized_crops_have_torchvisions_law(scale, ratio):
    """Of an image so large that torchvision's whole pixels make no difference."""
    torch.manual_seed(0)
    side, count = 10_000, 6_000
    image = torch.zeros(1, 1, 1).expand(1, side, side)
    cropper = v2.RandomResizedCrop(1, scale, ratio)
    drawn = [cropper.make_params([image]) for _ in range(count)]
    theirs = np.array([[p[name] for name in ("top", "left", "height", "width")] for p in drawn]) / side
    ours = crop_boxes(MANY, KEY, ViewSettings(crop="resized", convention="half-pixel", scale=scale, ratio=ratio))
    for column in range(4):
        same_law(np.round(ours[:, column], 4), np.round(theirs[:, column], 4), 0.03)
    same_law(np.round(ours[:, 2] * ours[:, 3], 3), np.round(theirs[:, 2] * theirs[:, 3], 3), 0.03)
    assert (ours >= 0).all() and (ours[:, :2] + ours[:, 2:] <= 1 + 1e-12).all()


def test_where_no_box_fits_it_is_the_middle():
    settings = ViewSettings(crop="resized", convention="half-pixel", scale=(1, 1), ratio=(2, 3))
    np.testing.assert_allclose(crop_boxes(MANY[:50], KEY, settings), np.tile([0.25, 0, 0.5, 1], (50, 1)))


@pytest.mark.parametrize("box", [(0, 0, 64, 64), (3.25, 10.5, 20.125, 50.75), (40, 0.001, 23.999, 9), (0.5, 30, 60, 8)])
@pytest.mark.parametrize("crop", [224, 56, 12])
def test_a_box_is_resampled_as_pil_does_it(box, crop):
    """Level for level, once PIL's own roundings are put in; see test_half_pixel_is_pil_bicubic."""
    from fastres.views.resample import box_matrices

    top, left, height, width = box
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    corners = (left, top, left + width, top + height)
    pil = np.asarray(Image.fromarray(image).resize((crop, crop), Image.Resampling.BICUBIC, box=corners))
    rows, columns = (
        np.rint(box_matrices(64, crop, np.array([start]), np.array([length]))[0] * 2**22) / 2**22
        for start, length in ((top, height), (left, width))
    )
    across = np.clip(np.floor(np.einsum("stc,wt->swc", image, columns) + 0.5), 0, 255)
    ours = np.clip(np.floor(np.einsum("hs,swc->hwc", rows, across) + 0.5), 0, 255)
    assert (ours != pil).mean() < 1e-3 and np.abs(ours - pil).max() <= 1  # PIL keeps the box in float32
    close = crop_box(image, np.array(box), crop)
    assert np.abs(np.clip(close, 0, 255) - pil).max() < 40, "PIL rounds and clamps between its two passes"


def test_erased_boxes_have_torchvisions_law():
    torch.manual_seed(0)
    settings, view = ViewSettings(erasing=0.7), torch.zeros(3, 56, 56)
    eraser = v2.RandomErasing(p=1.0, scale=(0.02, 1 / 3), ratio=(1 / 3.3, 3.3))
    settings = replace(settings, erasing_ratio=(1 / 3.3, 3.3))
    drawn = [eraser.make_params([view]) for _ in range(5_000)]
    theirs = np.array([[p["i"], p["j"], p["i"] + p["h"], p["j"] + p["w"]] for p in drawn])
    ours = erased_boxes(MANY, KEY, settings, 56)
    done = ours.any(1)
    assert abs(done.mean() - 0.7) < 0.02
    for column in range(4):
        same_law(ours[done][:, column], theirs[:, column], 0.03)
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] <= 56).all() and not ours[~done].any()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.8, 1.0, 1.5, 4.0, 20.0])
def test_quantiles_are_betas(alpha):
    drawn = np.sort(np.random.default_rng(0).beta(alpha, alpha, 2_000_000))
    table = quantiles(alpha)
    assert table[0] == 0 and table[-1] == 1 and (np.diff(table) >= 0).all()
    np.testing.assert_allclose(table + table[::-1], 1, atol=1e-12)
    half = np.arange(1, mixing.STEPS // 2)  # near 1 float64 has no room for the quantiles of a small alpha
    np.testing.assert_allclose(np.searchsorted(drawn, table[half]) / len(drawn), half / mixing.STEPS, atol=0.002)


def test_weights_of_a_mixture_are_betas():
    settings = ViewSettings(mixup=0.4)
    ours = mixtures(np.arange(40_000), KEY, settings, 56)
    assert (ours.kind == MIXUP).all() and not ours.patch.any()
    same_law(ours.own, np.random.default_rng(0).beta(0.4, 0.4, 20_000), 0.02)


def test_kinds_take_their_shares():
    ours = mixtures(np.arange(40_000), KEY, ViewSettings(mixup=0.2, cutmix=1.0, mixing=0.6), 56).kind
    np.testing.assert_allclose(np.bincount(ours) / 20_000, [0.4, 0.3, 0.3], atol=0.015)
    plain = mixtures(np.arange(400), KEY, ViewSettings(cutmix=1.0, mixing=0.5), 56)
    assert (plain.own[plain.kind == 0] == 1).all() and not plain.patch[plain.kind == 0].any()


@pytest.mark.parametrize("crop", [56, 21])
def test_a_pair_is_mixed_as_torchvision_mixes_it(crop):
    """MixUp's blend, CutMix's box from its centre and weight, and both labels."""
    random = np.random.default_rng(5)
    batch = random.normal(size=(2, crop, crop, 3))
    ours = mixtures(np.arange(200), KEY, ViewSettings(mixup=0.5, cutmix=1.0), crop)
    theirs = np.stack([mixing.weights(KEY.words(np.arange(0, 200, 2), 4)[2], alpha) for alpha in (0.5, 1.0)])
    centres = (np.stack(KEY.words(np.arange(0, 200, 2), 5)[:2], -1) * crop) >> 32
    tensor, labels = torch.from_numpy(batch).permute(0, 3, 1, 2), torch.tensor([4, 1])
    for pair in range(100):
        one = mixing.Mixtures(*(array[pair : pair + 1] for array in (ours.kind, ours.own, ours.patch)))
        cuts = one.kind[0] == CUTMIX
        own = theirs[int(cuts), pair]
        if cuts:
            half = int(0.5 * np.sqrt(1 - own) * crop)
            y, x = centres[pair]
            box = *(max(at - half, 0) for at in (x, y)), *(min(at + half, crop) for at in (x, y))
            lam = float(1.0 - (box[2] - box[0]) * (box[3] - box[1]) / (crop * crop))
            params = {"labels": labels, "batch_size": 2, "box": box, "lam_adjusted": lam}
            transform = v2.CutMix(num_classes=6)
        else:
            params, transform = {"labels": labels, "batch_size": 2, "lam": own}, v2.MixUp(num_classes=6)
        expected = transform.transform(tensor, params).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(np.stack(mix(list(batch), one)), expected, atol=1e-12)
        soft = soft_labels(labels, torch.from_numpy(one.own).float().repeat(2), 6)
        torch.testing.assert_close(soft, transform.transform(labels, params).float(), atol=1e-6, rtol=0)


def test_an_odd_batchs_last_has_no_partner():
    soft = soft_labels(torch.tensor([0, 1, 2]), torch.tensor([0.75, 0.75, 1.0]), 3)
    assert soft.tolist() == [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 1]]
    assert soft_labels(torch.tensor([2]), torch.ones(1), 3).tolist() == [[0, 0, 1]]
    assert soft_labels(torch.zeros(0, dtype=torch.long), torch.ones(0), 3).shape == (0, 3)


@pytest.mark.parametrize("name", AUGMENTED)
@pytest.mark.parametrize("side,upscale", [(64, 1), (16, 4), (24, 2), (96, 0.25)])
def test_torchs_views_equal_the_definition(side, upscale, name):
    plan = plan_of(name, Geometry(side, upscale), "torch")
    images, ids = _images(9, side), torch.arange(9) * 7919 + 11
    definition = replace(plan, settings=replace(plan.settings, impl="reference"), dtype=torch.float64)
    truth, ours = (views.apply(images, torch.arange(9), ids, p) for p in (definition, plan))
    assert ((ours - truth).abs() <= bound(images, torch.arange(9), ids, plan)).all()


@pytest.mark.parametrize("impl", ["torch", "numba", "reference"])
def test_a_batch_cut_between_pairs_has_the_same_views(impl):
    plan = plan_of("everything", Geometry(32, 1), impl)
    images, ids = _images(10, 32), torch.arange(10) * 31 + 5
    whole = views.apply(images, torch.arange(10), ids, plan)
    parts = [views.apply(images, torch.arange(a, b), ids[a:b], plan) for a, b in ((0, 2), (2, 8), (8, 10))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=2e-5, rtol=0)
    assert not torch.equal(views.apply(images, torch.arange(10), ids, replace(plan, epoch=9)), whole)


def test_what_cannot_be_is_refused():
    stage = Stage(name="all", epochs=1, train=("*",), upscale=1)
    with pytest.raises(UsageError, match="batch_size is 33, expected an even number"):
        Schedule(name="odd", stages=(stage,), batch_size=33, views=ViewSettings(mixup=0.2))
    Schedule(name="odd", stages=(stage,), batch_size=33, views=ViewSettings(mixup=0.2, mixing=0))
    with pytest.raises(UsageError, match=r"views.convention is 'torch7', expected half-pixel where views.crop"):
        ViewSettings(crop="resized")
    for name, value in (("scale", (0.3, 1)), ("ratio", (1, 1)), ("erasing_ratio", (1, 1)), ("mixing", 0.5)):
        with pytest.raises(UsageError, match=rf"views\.{name} is .* with it: alone it does nothing"):
            ViewSettings(**{name: value})
    for name, value in (
        ("crop", "random"),
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 0.2)),
        ("scale", (0.5,)),
        ("scale", (0.5, 1.5)),
        ("ratio", (0, 1)),
        ("ratio", (1e-40, 1)),
        ("erasing_ratio", (1, 1e40)),
        ("erasing", 2),
        ("erasing_scale", (0.1, 2.0)),
        ("mixup", -1),
        ("cutmix", 0.01),
        ("mixing", 1.1),
    ):
        with pytest.raises(UsageError, match=rf"views\.{name} is "):
            ViewSettings(**{name: value})


def test_settings_that_came_later_are_written_where_they_are_used():
    """The config of a run from before must stay the config of the same run."""
    always = {"convention", "brightness", "contrast", "saturation", "lighting", "flip", "impl"}
    assert set(ViewSettings(mixup=0.2, mixing=0).to_dict()) == always
    every = ViewSettings(**AUGMENTED["everything"], erasing_scale=(0.1, 0.2))
    assert set(every.unmixed().to_dict()) == always | {"crop", "scale", "ratio"}
    assert set(ViewSettings(mixup=0.2).to_dict()) == always | {"mixup", "cutmix", "mixing"}
    assert set(ViewSettings(erasing=0.2).to_dict()) == always | {"erasing", "erasing_scale", "erasing_ratio"}
    resized = ViewSettings(crop="resized", convention="half-pixel", scale=(0.3, 1))
    assert set(resized.to_dict()) == always | {"crop", "scale", "ratio"}
    assert repr(resized.scale) == "(0.3, 1.0)", "as --set views.scale=0.3,1 makes it"


def test_settings_that_need_each_other_may_be_named_in_any_order():
    schedule = SCHEDULES["demo"]
    words = ["views.crop=resized", "views.convention=half-pixel", "batch_size=6", "views.mixup=0.2"]
    for order in (words, words[::-1], [words[3], words[0], words[2], words[1]]):
        made = override(replace(schedule, batch_size=5), order)
        assert made.views.crop == "resized" and made.views.mixup == 0.2 and made.batch_size == 6
    with pytest.raises(UsageError, match="batch_size is 5, expected an even number"):
        override(replace(schedule, batch_size=5), ["views.mixup=0.2", "views.flip=0.1"])
    assert override(schedule, ["batch_size=5", "batch_size=8"]).batch_size == 8, "the last one counts"


def test_where_the_shares_go_must_fit():
    images, rows = _images(2, 16), torch.arange(2)
    plan = plan_of("mixup", Geometry(16, 1), "torch")
    for own in (torch.ones(3), torch.ones(2).double(), torch.ones(4)[::2], torch.ones(2, dtype=torch.long)):
        with pytest.raises(ValueError, match="own is .* expected float32"):
            views.apply(images, rows, rows, plan, own=own)
    with pytest.raises(ValueError, match="with a plan of training views"):
        fixed = views.TestPlan(geometry=plan.geometry, settings=plan.settings)
        views.apply(images, rows, rows, fixed, own=torch.ones(2))


def _images(count: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
