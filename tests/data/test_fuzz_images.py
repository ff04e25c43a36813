"""Damaged images, by seeded chance: each is a bad image or a picture, and nothing else."""

import contextlib

import numpy as np
import pytest

from fastres.data.convert import BadImage
from fastres.data.decode import Recipe, decode
from tests.data.test_whole import photo
from tests.support.fuzz import SECONDS, bytes_altered, tries
from tests.support.pictures import encoded


def pictures():
    image, how = photo(32, 5), {"RGBA": "PNG", "L": "JPEG", "I;16": "PNG"}
    found = {
        kind: encoded(image, kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "JPEG2000", "PPM", "QOI", "SGI")
    }
    found |= {
        mode: encoded(image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode), kind)
        for mode, kind in how.items()
    }
    found |= {
        f"TIFF {way}": encoded(image, "TIFF", compression=way)
        for way in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    }
    found |= {"GIF": encoded(image.convert("P"), "GIF"), "progressive": encoded(image, "JPEG", progressive=True)}
    found |= {
        "restarts": encoded(image, "JPEG", restart_marker_blocks=2),
        "lossless": encoded(image, "WEBP", lossless=True),
    }
    with contextlib.suppress(OSError, KeyError):
        found["AVIF"] = encoded(image, "AVIF")
    return found


@pytest.mark.fault(48)
@pytest.mark.parametrize("seconds", SECONDS)
def test_images(seconds):
    """Of a file that is cut, the pixels are those of the whole one; of one that is changed, they are some or none."""
    found = pictures()
    whole = {kind: decode(data, Recipe(32))[0] for kind, data in found.items()}
    for chance, what in tries(seconds, "image"):
        kind, recipe = chance.choice(list(found)), Recipe(32, resize=chance.random() < 0.5)
        data, same = found[kind], chance.random() < 0.4
        data = data[: chance.randrange(len(data))] if same else bytes_altered(data, chance)
        try:
            pixels, _ = decode(data, recipe)
        except BadImage as bad:
            assert str(bad), (what, kind)
            continue
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8, (what, kind)
        assert not same or np.array_equal(pixels, whole[kind]), (what, kind)
