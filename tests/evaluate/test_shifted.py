"""Fifteen corruptions, each against what it is to be; and a network's errors on them, by a slow loop."""

import colorsys
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as command
from fastres.evaluate.shifted import CORRUPTIONS, Shifted, corrupt
from fastres.evaluate.shifted.corruptions import NAMES
from fastres.evaluate.shifted.tools import Chance, blur, filtered_by_disk, sample, streak, zoomed
from fastres.machine.errors import UsageError
from fastres.model.reading import read_weights
from fastres.model.weights import network_from
from fastres.schedules.types import ViewSettings
from fastres.views.geometry import Geometry
from tests.support.tiny_runs import train_tiny

WITHOUT_CHANCE = {"defocus", "zoom", "brightness", "contrast", "pixelate", "jpeg"}


def photos(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with an edge: u8 [count, side, side, 3]."""
    coarse = np.random.default_rng(seed).integers(20, 235, (count, 4, 4, 3), np.uint8)
    smooth = [np.array(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse]
    made = np.stack(smooth)
    made[:, side // 2 :, side // 3 :] //= 2
    return made


def grey(side: int, level: int = 128, count: int = 1) -> np.ndarray:
    return np.full((count, side, side, 3), level, np.uint8)


def test_there_are_fifteen_of_four_kinds():
    assert len(NAMES) == len(set(NAMES)) == 15
    assert [len(kind) for kind in CORRUPTIONS.values()] == [3, 4, 4, 4]


@pytest.mark.parametrize("side", [8, 16, 40, 64])
@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_changes_photos_of_any_side_and_keeps_shape_and_kind(name, side):
    given = photos(3, side)
    before = given.copy()
    made = corrupt(given, [5, 6, 7], name)
    assert made.shape == given.shape and made.dtype == np.uint8 and (given == before).all()
    assert all((a != b).mean() > 0.02 for a, b in zip(made, given, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_the_images_own(name):
    """Alone or in a batch, in any order; the same photo under another id is another draw, where there is chance."""
    given = photos(4, 16)
    together = corrupt(given, [9, 2, 7, 4], name)
    for index, sample_id in enumerate([9, 2, 7, 4]):
        alone = corrupt(given[index : index + 1], [sample_id], name)[0]
        assert np.abs(alone.astype(int) - together[index]).max() <= 1  # sums of other shapes, rounded
    other = corrupt(given, [90, 20, 70, 40], name)
    assert (other == together).all() == (name in WITHOUT_CHANCE)


def test_noises_have_the_variance_they_are_to_have():
    given = grey(64, 102, count=4)
    x = given / 255
    gaussian, shot, impulse = (
        corrupt(given, range(4), f"{name} noise") / 255 for name in ("gaussian", "shot", "impulse")
    )
    assert (gaussian - x).std() == pytest.approx(0.12, rel=0.02) and abs((gaussian - x).mean()) < 0.002
    assert (shot - x).std() == pytest.approx(math.sqrt(0.4 / 50), rel=0.02) and abs((shot - x).mean()) < 0.002
    assert (impulse == 0).mean() == pytest.approx(0.025, rel=0.1)
    assert (impulse == 1).mean() == pytest.approx(0.025, rel=0.1)
    assert ((impulse == 0) | (impulse == 1) | (impulse == x)).all()
    channels = (impulse != x).reshape(-1, 3).mean(0)
    assert all(0.04 < share < 0.06 for share in channels)  # channel by channel, not whole pixels


def test_brightness_is_hsvs_value():
    given = photos(1, 16)
    given[0, 0, 0] = 0  # black has neither hue nor saturation
    for pixel, made in zip(given.reshape(-1, 3), corrupt(given, [0], "brightness").reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.3)))
        assert np.abs(made - expected).max() <= 0.51


def test_contrast_pixels_and_jpeg_are_what_they_say():
    given = photos(2, 64)
    flat = given.astype(float)
    mean = flat.mean((1, 2), keepdims=True)
    assert np.abs(corrupt(given, [0, 1], "contrast") - (mean + 0.2 * (flat - mean))).max() <= 0.51
    box = Image.Resampling.BOX
    for photo, coarse, saved in zip(
        given, corrupt(given, [0, 1], "pixelate"), corrupt(given, [0, 1], "jpeg"), strict=True
    ):
        assert (coarse == np.asarray(Image.fromarray(photo).resize((44, 44), box).resize((64, 64), box))).all()
        Image.fromarray(photo).save(file := io.BytesIO(), "JPEG", quality=50)
        assert (saved == np.asarray(Image.open(file))).all()


@pytest.mark.parametrize("name", ["defocus", "glass", "motion", "zoom", "elastic"])
@pytest.mark.parametrize("side", [16, 64])
def test_what_moves_light_leaves_an_even_photo_alone(name, side):
    assert np.abs(corrupt(grey(side, 77), [3], name).astype(int) - 77).max() <= 1


@pytest.mark.parametrize("radius", [0.375, 1.5, 2.2])
def test_a_disk_is_the_mean_of_what_lies_in_it(radius):
    """By points of the disk, one after the other, each between four pixels."""
    x = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made, points, total = filtered_by_disk(x.float(), radius), 0, 0.0
    for dy in np.linspace(-radius, radius, 81):
        for dx in np.linspace(-radius, radius, 81):
            if dx * dx + dy * dy <= radius * radius:
                row, column = 6 + dy, 5 + dx
                i, j = int(row), int(column)
                a, b = row - i, column - j
                corners = x[0, 0, i : i + 2, j : j + 2]
                total += float(
                    torch.tensor([1 - a, a], dtype=x.dtype) @ corners @ torch.tensor([1 - b, b], dtype=x.dtype)
                )
                points += 1
    assert made[0, 0, 6, 5].item() == pytest.approx(total / points, abs=5e-3)


def test_a_streak_goes_to_one_side_and_keeps_the_light():
    x = torch.zeros(2, 1, 33, 33)
    x[:, :, 16, 16] = 1.0
    made = streak(x, 10.0, 2.0, torch.tensor([0.0, 90.0]))
    assert made.sum((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-4)
    across, down = made[0, 0], made[1, 0]
    torch.testing.assert_close(across, down.mT, atol=1e-4, rtol=0)
    assert across[16, :17].sum() > 0.999 and across[16, 17:].sum() < 1e-4
    weights = torch.exp(-torch.arange(11).square() / 8)
    torch.testing.assert_close(across[16, 6:17].flip(0), weights / weights.sum(), atol=1e-3, rtol=0)


def test_enlarging_keeps_the_centre_and_places_are_pixels():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(zoomed(x, 1.0), x, atol=1e-5, rtol=0)
    ramp = (torch.arange(16) + 0.5).expand(1, 1, 16, 16)
    torch.testing.assert_close(zoomed(ramp, 2.0)[0, 0, 3], (torch.arange(16) + 0.5 - 8) / 2 + 8, atol=1e-4, rtol=0)
    rows = (torch.arange(16) + 0.5)[:, None].expand(1, 16, 16)
    moved = sample(x, rows, rows.mT + 1)
    torch.testing.assert_close(moved[..., :-1], x[..., 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., -1], x[..., -1], atol=1e-5, rtol=0)  # mirrored at the border


def test_a_blur_is_a_gaussian():
    x = torch.zeros(1, 1, 31, 31)
    x[0, 0, 15, 15] = 1.0
    places = torch.arange(31) - 15.0
    bell = torch.exp(-places.square() / (2 * 2.0**2))
    torch.testing.assert_close(blur(x, 2.0)[0, 0, 15], bell / bell.sum() * (bell / bell.sum())[15], atol=1e-4, rtol=0)


def test_snow_and_frost_lighten_dark_photos_and_fog_stays_below_the_brightest_pixel():
    for name in ("snow", "frost"):
        assert corrupt(grey(64, 30, count=3), range(3), name).mean() > 40
    given = photos(3, 64)
    for photo, made in zip(given, corrupt(given, range(3), "fog"), strict=True):
        assert made.max() <= photo.max() and made.std() < photo.std()


def test_streams_of_chance_differ_by_corruption_and_by_id():
    first, again, other_id, other = (Chance([i], s).normal(4) for i, s in ((1, 0), (1, 0), (2, 0), (1, 1)))
    assert torch.equal(first, again) and not torch.equal(first, other_id) and not torch.equal(first, other)


@pytest.fixture(scope="module")
def run(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shifted") / "run"
    train_tiny(packed, folder, "--precision", "fp32")
    return folder


def test_the_command_counts_what_a_slow_loop_counts(run, packed, capsys):
    """Photo by photo through torchvision's own network, by the centre crop."""
    capsys.readouterr()
    assert command.main([str(run), "--data", str(packed), "--device", "cpu", "--json", "--shifted"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = Shifted.of(result["shifted"])
    data = Resident(packed, load_manifest(packed), "val", torch.device("cpu"))
    weights = run / "final.safetensors"
    network = network_from(read_weights(weights), weights).eval()
    plan = views.TestPlan(geometry=Geometry(16, 1), settings=ViewSettings())
    for name in ("snow", "gaussian noise", "jpeg"):
        wrong = 0
        for index in range(len(data)):
            ids = torch.tensor([index])
            image = corrupt(data.pixels(ids).numpy(), [index], name)
            view = views.apply(torch.from_numpy(image), torch.tensor([0]), ids, plan)
            with torch.no_grad():
                wrong += int(network(view).argmax() != data.labels[index])
        assert found.errors[name] == pytest.approx(100 * wrong / len(data), abs=100 / len(data) + 1e-9)
    assert found.clean == result["errors"]["expsum"]["centre"]["top1"]
    assert found.mean == pytest.approx(sum(found.errors.values()) / 15) and set(found.errors) == set(NAMES)
    assert found.of_kind("noise") == pytest.approx(
        sum(found.errors[f"{n} noise"] for n in ("gaussian", "shot", "impulse")) / 3
    )
    assert command.main([str(run), "--data", str(packed), "--device", "cpu", "--shifted"]) == 0
    assert f"mean of the fifteen  {found.mean:.2f}" in " ".join(capsys.readouterr().out.split()).replace(
        "fifteen ", "fifteen  "
    )


def test_what_does_not_go_together(run):
    with pytest.raises(UsageError, match="--gate MARGIN and --shifted: one of them at a time"):
        command.main([str(run), "--device", "cpu", "--shifted", "--gate", "2"])
    with pytest.raises(UsageError, match="is unlabelled"):
        command.main([str(run), "--device", "cpu", "--shifted", "--split", "test", "--submission", "x.txt"])
