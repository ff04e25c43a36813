"""fastres/data/whole.py: where something of an image is missing it is a bad one; no whole one is."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from fastres.data import decode, whole
from fastres.data.convert import BadImage
from fastres.data.decode import Recipe
from tests.support.pictures import encoded

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.97, 0.99)
JPEGS = {
    "baseline": {},
    "fine": {"quality": 97, "subsampling": 0},
    "tables of its own": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 1},
    "restarts of rows": {"restart_marker_rows": 1, "quality": 95},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 2},
    "CMYK": {"mode": "CMYK"},
    "gray": {"mode": "L"},
    "gray progressive": {"mode": "L", "progressive": True},
    "gray restarts": {"mode": "L", "restart_marker_blocks": 1},
}


def photo(side, seed=0):
    """Neither flat nor noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(3, side // 4), max(3, side // 4), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def jpeg(image, mode="RGB", **how):
    return encoded(image.convert(mode), "JPEG", **how)


def decoded(data, side):
    return decode.decode(data, Recipe(side, resize=True))[0]


def scan_of(data):
    """Where the first scan's bits begin and the last one's end."""
    first = data.index(b"\xff\xda")
    return first + 2 + int.from_bytes(data[first + 2 : first + 4], "big"), len(data) - 2


# ---- JPEG


@pytest.mark.fault(41)
@pytest.mark.parametrize("how", JPEGS)
@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("side_wanted", ["own", "half"])
def test_a_cut_jpeg_with_its_end_mark_is_bad(how, side, side_wanted):
    whole_side = side if side_wanted == "own" else side // 2
    for seed in range(4):
        data = jpeg(photo(side, seed), **JPEGS[how])
        start, end = scan_of(data)
        decoded(data, whole_side)
        for place in PLACES:
            cut = data[: start + int((end - start) * place)] + b"\xff\xd9"
            with pytest.raises(BadImage):
                decoded(cut, whole_side)


@pytest.mark.fault(41)
@pytest.mark.parametrize("how", ["baseline", "restarts", "gray"])
def test_a_jpeg_cut_by_any_byte_is_bad_or_the_same(how):
    """The last byte may hold nothing but bits that fill it up."""
    data = jpeg(photo(32), **JPEGS[how])
    start, end = scan_of(data)
    reference, bad = decoded(data, 32), 0
    for at in range(start, end):
        try:
            np.testing.assert_array_equal(decoded(data[:at] + b"\xff\xd9", 32), reference)
        except BadImage:
            bad += 1
    assert bad >= end - start - 1


@pytest.mark.fault(41)
@pytest.mark.parametrize("how", ["progressive", "gray progressive"])
def test_a_progressive_jpeg_without_its_last_scans_is_bad(how):
    data = jpeg(photo(64), **JPEGS[how])
    at, scans = scan_of(data)[0], 1
    while (end := whole.AFTER_SCAN.search(data, at).start()) < len(data) - 2:
        with pytest.raises(BadImage, match=f"found {scans} of its scans"):
            decoded(data[:end] + b"\xff\xd9", 64)
        at, scans = data.index(b"\xff\xda", end) + 2, scans + 1
    assert scans > 3


@pytest.mark.fault(41)
def test_a_jpeg_filled_up_with_zeros_is_bad():
    data = jpeg(photo(64))
    with pytest.raises(BadImage, match="truncated"):
        decoded(data[: len(data) // 2] + bytes(len(data) // 2), 64)


@pytest.mark.fault(41)
def test_a_large_jpeg_is_decoded_once(monkeypatch):
    image = photo(700)
    data = encoded(image, "JPEG", quality=95)
    assert len(data) > whole.SMALL
    monkeypatch.setattr(decode, "check_whole", lambda *_: pytest.fail("was compared"))
    with Image.open(io.BytesIO(data)) as plain:
        np.testing.assert_array_equal(decoded(data, 64), np.asarray(decode.fit(plain.convert("RGB"), 64)))
    monkeypatch.undo()
    start, end = scan_of(data)
    for place in PLACES:
        with pytest.raises(BadImage, match="truncated"):
            decoded(data[: start + int((end - start) * place)] + b"\xff\xd9", 64)


@pytest.mark.fault(41)
@pytest.mark.parametrize("how", JPEGS)
@pytest.mark.parametrize("colour", [(128, 128, 128), (0, 0, 0), (255, 255, 255), (12, 200, 90)])
def test_plain_colours_are_whole(how, colour):
    """Gray is what libjpeg fills in."""
    for side in (8, 16, 50):
        decoded(jpeg(Image.new("RGB", (side, side), colour), **JPEGS[how]), side)


@pytest.mark.fault(41)
@pytest.mark.parametrize("tail", [b"", b"\0", b"\n", b"\xff\xd9", bytes(3000), b"\xff\xd8\xff\xe0 a second picture"])
@pytest.mark.parametrize("filling", [b"", b"\xff", b"\xff\xff\xff"])
def test_what_stands_around_the_end_mark_does_not_matter(tail, filling):
    data = jpeg(photo(64))
    np.testing.assert_array_equal(decoded(data[:-2] + filling + data[-2:] + tail, 64), decoded(data, 64))


@pytest.mark.fault(41)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
def test_no_whole_jpeg_is_refused(mode, subsampling, quality):
    for side in (8, 17, 64):
        for how in ({}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 3}):
            image = photo(side, quality + side)
            data = jpeg(image, mode, quality=quality, subsampling=subsampling, **how)
            with Image.open(io.BytesIO(data)) as plain:
                np.testing.assert_array_equal(decoded(data, side), np.asarray(plain.convert("RGB")))


# ---- PNG


def png(image, bits_per_row, rows, **how):
    """The file with only the first `rows` rows in its stream, which is well-formed, as all its checksums are."""
    data, at, packed = encoded(image, "PNG", **how), 8, b""
    parts = [data[:8]]
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content, at = data[at + 8 : at + 8 + length], at + 12 + length
        if kind == b"IDAT":
            packed += content
            continue
        if kind == b"IEND":
            stream = zlib.compress(zlib.decompress(packed)[: rows * (1 + -(-bits_per_row // 8))])
            parts.append(chunk(b"IDAT", stream))
        parts.append(chunk(kind, content))
    return b"".join(parts)


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


@pytest.mark.fault(41)
@pytest.mark.parametrize(("mode", "bits"), [("RGB", 24), ("L", 8), ("RGBA", 32), ("LA", 16), ("P", 8), ("1", 1)])
def test_a_png_with_some_of_its_rows_is_bad(mode, bits):
    image = photo(48).convert(mode)
    decoded(png(image, 48 * bits, 48), 48)
    for rows in (0, 1, 24, 47):
        for side in (48, 24):
            with pytest.raises(BadImage, match="truncated"):
                decoded(png(image, 48 * bits, rows), side)


def interlaced(pixels, keep=1.0):
    """Adam7, rows unfiltered: gray of 8 bits."""
    rows = b""
    for (across, down), (left, top) in zip(whole.BANDS[1], whole.STARTS[1], strict=True):
        for row in pixels[top::down, left::across]:
            rows += b"\0" + row.tobytes() if row.size else b""
    header = pixels.shape[1].to_bytes(4, "big") + pixels.shape[0].to_bytes(4, "big") + bytes((8, 0, 0, 0, 1))
    stream = zlib.compress(rows[: int(len(rows) * keep)])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


@pytest.mark.fault(41)
def test_an_interlaced_png():
    for side in (1, 2, 3, 5, 8, 13, 48):
        pixels = np.random.default_rng(side).integers(1, 256, (side, side), dtype=np.uint8)
        np.testing.assert_array_equal(decoded(interlaced(pixels), side)[..., 0], pixels)
        for keep in (0.25, 0.5, 0.75, 0.99):
            with pytest.raises(BadImage):
                decoded(interlaced(pixels, keep), side)


@pytest.mark.fault(41)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16"])
def test_a_black_png_is_whole(mode):
    image = Image.new(mode, (16, 16))
    assert not decode.decode(encoded(image, "PNG"), Recipe(16, background=(0, 0, 0)))[0].any()


@pytest.mark.fault(41)
def test_a_png_whose_pixels_have_another_checksum_is_bad():
    data = bytearray(encoded(photo(48), "PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(BadImage):
        decoded(bytes(data), 48)
