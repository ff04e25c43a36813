"""Photos that were packed larger than a network is shown them: made smaller by the same views, with every tap."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastres import views
from fastres.evaluate import __main__ as evaluate
from fastres.machine.errors import DataError, UsageError
from fastres.model.card import card_of
from fastres.model.metadata import checked, read_metadata
from fastres.model.network import Architecture
from fastres.predict import __main__ as predict
from fastres.schedules import SCHEDULES
from fastres.schedules.loading import override
from fastres.schedules.paper import PAPER
from fastres.schedules.types import Stage, ViewSettings
from fastres.stage.rehearsal import rehearse
from fastres.views.geometry import Geometry
from tests.support.tiny_runs import train_tiny

LARGE = ("views.convention=half-pixel", "views.crop=resized", "stages.0.upscale=2", "stages.1.upscale=2",
         "stages.2.upscale=0.5", "stages.3.upscale=0.5")  # fmt: skip


@pytest.fixture(scope="module")
def run(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "run"
    return folder, train_tiny(packed, folder, "--precision", "fp32", "--set", *LARGE)


def test_a_run_trains_evaluates_and_answers_at_the_smaller_size(run, packed, tmp_path, capsys):
    folder, summary = run
    written = read_metadata(folder / "final.safetensors")
    assert (written["side"], written["upscale"]) == (16, 0.5)
    card = card_of(written, Architecture("resnet18", 8, 4, "3x3"), "x")
    assert (card.geometry.resized, card.geometry.crop) == (8, 7) and "shrink it to 8" in card.preprocessing()
    capsys.readouterr()
    assert evaluate.main([str(folder), "--data", str(packed), "--precision", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == summary["errors"]
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(photo)
    assert predict.main([str(photo), "--model", str(folder), "--device", "cpu", "--json"]) == 0
    assert "class" in capsys.readouterr().out


@pytest.mark.parametrize("impl", ["numba", "torch"])
def test_a_whole_photo_made_smaller_is_what_pillow_makes(impl):
    """Its mean to a byte's rounding, by BICUBIC with every tap; the crop's edge lies inside, so nothing is cut off."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (1, 96, 96, 3), np.uint8)
    plan = views.TestPlan(geometry=Geometry(96, 1 / 3, True), settings=ViewSettings(convention="half-pixel", impl=impl))
    made = views.apply(torch.from_numpy(image), torch.tensor([0]), torch.tensor([0]), plan)[0]
    mean, std = (torch.tensor(n)[:, None, None] for n in (views.colour.MEAN, views.colour.STD))
    pixels = ((made.double() * std + mean) * 255).permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(image[0]).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(pixels.clip(0, 255) - expected).max() <= 1.01  # Pillow rounds after each direction


def test_fractions_are_numbers_and_whole_ones_stay_whole():
    small = override(PAPER, ["stages.3.upscale=0.5", "views.convention=half-pixel"])
    assert small.stages[3].upscale == 0.5
    same = override(PAPER, ["stages.0.upscale=4.0"])
    assert same == PAPER and type(same.stages[0].upscale) is int and same.to_dict() == PAPER.to_dict()


def test_what_cannot_be_is_refused():
    with pytest.raises(
        UsageError, match="views.convention is 'torch7', expected half-pixel where a stage's upscale is"
    ):
        override(PAPER, ["stages.3.upscale=0.5"])
    with pytest.raises(UsageError, match="upscale of stage x is 0, expected more than 0"):
        Stage(name="x", epochs=1, train=("*",), upscale=0)
    halved = ["views.convention=half-pixel", *(f"stages.{n}.upscale={u}" for n, u in enumerate((2, 2, 0.5, 0.5)))]
    assert len(rehearse(override(PAPER, halved), 200, 128)) == 4
    with pytest.raises(UsageError, match="stem:pullback: its stage has upscale 0.5, expected a whole number"):
        rehearse(override(SCHEDULES["pullback"], halved), 200, 128)
    assert rehearse(override(SCHEDULES["scratch-64"], ["stages.0.upscale=0.5"]), 200, 128)[0].stem == "3x3"
    net = Architecture("resnet18", 8, 4, "3x3")
    assert card_of({"side": 128, "upscale": 0.5}, net, "x").convention == "half-pixel"
    with pytest.raises(DataError, match="images shrunk to 0.5 by torch7, which skips pixels; expected half-pixel"):
        card_of({"side": 128, "upscale": 0.5, "convention": "torch7"}, net, "x")
    odd = override(PAPER, ["stages.3.upscale=0.3", "views.convention=half-pixel"])
    with pytest.raises(UsageError, match="stage all-56: 64 pixels enlarged 0.3 times, expected a multiple of 8"):
        rehearse(odd, 200, 64)
    for absurd in (1e-300, 1e308, 0.1):
        with pytest.raises(UsageError, match="expected a multiple of 8"):
            Geometry(64, absurd)
    with pytest.raises(UsageError, match="upscale is 0.3: images of 64 pixels would have 19.2, expected a multiple"):
        Geometry(64, 0.3)
    with pytest.raises(DataError, match="side 64 and upscale 0.3, expected a multiple of 8 up to 8192"):
        checked({"side": 64, "upscale": 0.3}, "x")
