"""What predict decodes: photos become what the packer would make of them."""

import os

import numpy as np
import pytest
from PIL import Image

from fastres.data.decode import Recipe
from fastres.data.manifest import load_manifest
from fastres.predict.__main__ import parser
from fastres.predict.decoding import decoded
from tests.support.packing import arrays
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
    recipe = Recipe(16, resize=True, background=options.background)
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
