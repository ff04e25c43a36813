"""What predict decodes: photos become what the packer would make of them."""

import argparse
import os

import numpy as np
import pytest
import torch
from PIL import Image

import fastres
from fastres.data.convert import WHITE, colour
from fastres.data.decode import Recipe
from fastres.data.manifest import load_manifest
from fastres.model import export
from fastres.predict import __main__ as predict
from fastres.predict.__main__ import parser
from fastres.predict.answering import open_model
from fastres.predict.decoding import decoded
from tests.support.packing import arrays
from tests.support.tiny_runs import train_tiny
from tests.support.trees import picture, write_image


@pytest.fixture
def photos(tmp_path):
    """A turned JPEG, a transparent PNG, 16-bit grey, WebP: in both classes of a tree, and their paths."""
    turned = Image.Exif()
    turned[0x0112] = 8
    grey = np.asarray(Image.fromarray(picture(40, 2)).convert("L")).astype(np.uint16) * 257
    rgba = np.dstack([picture(40, 3), np.linspace(0, 255, 1600).reshape(40, 40).astype(np.uint8)])
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "tree" / split / label
            folder.mkdir(parents=True)
            Image.fromarray(picture(64, 1)[:, :48]).save(folder / "0.jpg", exif=turned)
            Image.fromarray(rgba).save(folder / "1.png")
            Image.fromarray(grey).save(folder / "2.png")
            Image.fromarray(picture(40, 4)).save(folder / "3.webp")
    return tmp_path / "tree"


@pytest.mark.parametrize("background", [(), ("--background", "#4060ff")])
def test_photos_are_decoded_as_the_packer_does(photos, packer, tmp_path, background):
    code, _, err = packer("--source", photos, "--side", 16, *background)
    assert code == 0, err
    images, _, files = arrays(tmp_path / "packed", "val")
    options = parser().parse_args(["x.png", "--model", "m", *background])
    recipe = Recipe(16, resize=True, background=options.background or WHITE)
    for size in (3, 100):  # in processes, and in this one
        parts = list(decoded([photos / path for path in files], recipe, size))
        np.testing.assert_array_equal(np.concatenate([part.pixels for part in parts]), images)
    converted = load_manifest(tmp_path / "packed").splits["val"]["converted"]
    assert [converted[kind] for kind in ("orientation 8", "transparent", "I;16", "WEBP")] == [2] * 4


def test_what_is_no_photo(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("404 Not Found")
    write_image(tmp_path / "good.png", picture(20, 1), "PNG")
    names = ("pipe.png", "nothing.png", "good.png", "text.png", "")
    for size in (2, 100):
        parts = list(decoded([tmp_path / name for name in names], Recipe(16, resize=True), size))
        faults = [fault for part in parts for fault in part.faults]
        assert [fault is None for fault in faults] == [False, False, True, False, False]
        assert "no regular file" in faults[0] and "No such file" in faults[1] and "404 Not" in faults[3]
        assert sum(len(part.pixels) for part in parts) == 1


def test_a_model_remembers_the_background_of_its_images(packer, tmp_path, capsys):
    """From the packed data through a run's weights, an export and its answers; another where it is asked for."""
    folder = tmp_path / "photos"
    for number, label in enumerate(("cat", "dog")):
        for k in range(6):
            pixels = np.dstack([picture(16, 10 * number + k), np.full((16, 16), 255 * (k % 2), np.uint8)])
            (folder / ("train" if k < 4 else "val") / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / ("train" if k < 4 else "val") / label / f"{k}.png")
    assert packer("--source", folder, "--side", 16, "--background", "black")[0] == 0
    run = tmp_path / "run"
    train_tiny(packer.out, run, "--device", "cpu", "--set", "batch_size=4")
    export.main([str(run), "--safetensors", str(tmp_path / "net.safetensors")])
    cpu = torch.device("cpu")
    for model in (run, tmp_path / "net.safetensors"):
        _, card, _ = open_model(model, "fp32", cpu)
        assert card.background == "#000000" and "transparent pixels on #000000" in card.preprocessing()
    capsys.readouterr()
    answers = {}
    for name, more in (("own", ()), ("black", ("--background", "black")), ("white", ("--background", "white"))):
        words = [folder / "val", "--model", run, "--device", "cpu", "--precision", "fp32", "--json", *more]
        predict.main([str(word) for word in words])
        answers[name] = capsys.readouterr().out
    assert answers["own"] == answers["black"] != answers["white"]
    (path,) = (folder / "val/cat").glob("4.png")
    loaded = fastres.load(run, device="cpu", precision="fp32")
    one = [
        loaded.predict(path, **more)[0].probabilities for more in ({}, {"background": "black"}, {"background": "white"})
    ]
    assert one[0] == one[1] != one[2]


@pytest.mark.parametrize("text", ["hsv(0,300%,900%)", "rgb(300,0,0)", "#12345678"])
def test_a_colour_that_no_screen_has(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a colour"):
        colour(text)
