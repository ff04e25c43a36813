"""data/convert.py: whatever way a file stores transparency, the background shows through it."""

import zlib

import numpy as np
import pytest
from PIL import Image

from fastres.data.convert import colour
from tests.support.pictures import GREY, SIDE, UPRIGHT, encoded, pixels

ALPHA = np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(SIDE, SIDE)


def on(background, rgb=UPRIGHT, alpha=ALPHA):
    share = alpha[..., None] / 255
    return rgb * share + np.array(background) * (1 - share)


def keyed(mode):
    """(bytes, opaque pixels, where they are transparent): one colour or gray of the file is transparent."""
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[3:9, 2:7] = 0
    rgb = np.where(alpha[..., None] == 0, np.uint8([200, 10, 30]), np.maximum(UPRIGHT, 1) // 2)
    grey = np.where(alpha == 0, np.uint8(200), GREY // 2)
    if mode == "RGB":
        return encoded(Image.fromarray(rgb), "PNG", transparency=(200, 10, 30)), rgb, alpha
    if mode == "RGB;16":
        return (
            png16(rgb.astype(np.uint16) * 257, 2, b"".join(int(v * 257).to_bytes(2, "big") for v in (200, 10, 30))),
            rgb,
            alpha,
        )
    grey3 = np.repeat(grey[..., None], 3, 2)
    if mode == "L":
        return encoded(Image.fromarray(grey), "PNG", transparency=200), grey3, alpha
    if mode == "L;4":
        levels = np.where(alpha == 0, 9, grey // 40).astype(np.uint8)  # below 9
        packed = (levels[:, ::2] << 4) | levels[:, 1::2]
        return png(packed, SIDE, 4, 0, (9).to_bytes(2, "big")), np.repeat(levels[..., None] * 17, 3, 2), alpha
    if mode == "I;16":
        return png16(grey.astype(np.uint16) * 257, 0, (200 * 257).to_bytes(2, "big")), grey3, alpha
    if mode == "1":
        bits = Image.fromarray(alpha == 0)
        return encoded(bits, "PNG", transparency=255), np.zeros((SIDE, SIDE, 3), np.uint8), alpha
    raise AssertionError(mode)


def png(rows, width, depth, colour_type, key=None):
    """A PNG by hand: what Pillow does not write. rows: u8 [height, bytes]."""

    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + len(rows).to_bytes(4, "big") + bytes([depth, colour_type, 0, 0, 0])
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [chunk(b"IHDR", head), *([chunk(b"tRNS", key)] if key else []), chunk(b"IDAT", zlib.compress(body))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def png16(values, colour_type, key=None):
    rows = values.astype(">u2").reshape(len(values), -1).view(np.uint8)
    return png(rows, SIDE, 16, colour_type, key)


@pytest.mark.fault(32)
@pytest.mark.parametrize("mode", ["RGB", "RGB;16", "L", "L;4", "I;16", "1"])
def test_one_transparent_colour_shows_the_background(mode):
    data, opaque, alpha = keyed(mode)
    found, kinds = pixels(data)
    np.testing.assert_array_equal(found, on((255, 255, 255), opaque, alpha).astype(np.uint8))
    assert "transparent" in kinds


@pytest.mark.fault(32)
@pytest.mark.parametrize("background", ["white", "#204060"])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGBA 16 bits", "LA 16 bits", "WEBP", "TIFF", "GIF"])
def test_transparency_shows_the_background(kind, background):
    rgba, la = Image.fromarray(np.dstack([UPRIGHT, ALPHA])), Image.fromarray(GREY).convert("LA")
    la.putalpha(Image.fromarray(ALPHA))
    rgb, alpha, tolerance = UPRIGHT, ALPHA, 1
    if kind in ("RGBA", "LA", "TIFF"):
        data = encoded(la if kind == "LA" else rgba, "TIFF" if kind == "TIFF" else "PNG")
    elif kind == "WEBP":
        data = encoded(rgba, "WEBP", lossless=True, exact=True)
    elif kind == "RGBA 16 bits":
        data = png16(np.dstack([UPRIGHT, ALPHA]).astype(np.uint16) * 257, 6)
    elif kind == "LA 16 bits":
        data = png16(np.dstack([GREY, ALPHA]).astype(np.uint16) * 257, 4)
    else:  # a palette of 16 grays; in a PNG each has its alpha, in a GIF the tenth is transparent
        indices = (ALPHA // 16).astype(np.uint8)
        image = Image.frombytes("P", (SIDE, SIDE), indices.tobytes())
        image.putpalette(np.repeat(np.arange(16, dtype=np.uint8) * 9, 3).tobytes())
        rgb = np.repeat((indices * 9)[..., None], 3, 2)
        if kind == "P":
            data, alpha = encoded(image, "PNG", transparency=bytes(range(0, 256, 16))), indices * 16
        else:
            data, alpha = encoded(image, "GIF", transparency=10), np.where(indices == 10, 0, 255)
    if kind.startswith("LA"):
        rgb = np.repeat(GREY[..., None], 3, 2)
    found, kinds = pixels(data, background=colour(background))
    assert np.abs(found - on(colour(background), rgb, alpha)).max() <= tolerance
    assert "transparent" in kinds


@pytest.mark.fault(32)
def test_opaque_alpha_changes_nothing():
    data = encoded(Image.fromarray(np.dstack([UPRIGHT, np.full_like(GREY, 255)])), "PNG")
    found, kinds = pixels(data, background=(255, 0, 0))
    np.testing.assert_array_equal(found, UPRIGHT)
    assert kinds == ("PNG", "RGBA")


@pytest.mark.fault(32)
@pytest.mark.parametrize("text", ["whitish", "#12", "#ff00ff80", ""])
def test_backgrounds_that_are_no_colour(text):
    with pytest.raises(Exception, match="expected a colour"):
        colour(text)
