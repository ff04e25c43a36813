"""An image's size is known before any of it is unpacked; TIFF's ways of being half there."""

import io
import itertools
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from fastres.data import decode
from fastres.data.convert import BadImage
from fastres.data.decode import Recipe
from tests.data.test_whole import chunk, decoded, photo
from tests.support.pictures import encoded

SIDE = 13_000  # 169 million pixels


def large(kind):
    """A header that says SIDE x SIDE, and little behind it."""
    small, way = (
        Image.new("RGB", (8, 8)),
        {"PNG": (16, ">II"), "GIF": (6, "<HH"), "BMP": (18, "<ii"), "QOI": (4, ">II")},
    )
    if kind == "JPEG":
        data = bytearray(encoded(small, "JPEG"))
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, SIDE, SIDE)
    elif kind == "PPM":
        data = b"P6 %d %d 255\n" % (SIDE, SIDE) + bytes(100)
    elif kind in ("TIFF", "a TIFF's tile"):
        tags = {"TIFF": {256: SIDE, 257: SIDE}, "a TIFF's tile": {322: SIDE, 323: SIDE, 324: 8, 325: 100}}[kind]
        data = tiff(
            {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64, **tags}, zlib.compress(bytes(64))
        )
    else:
        data = bytearray(encoded(small, kind))
        at, code = way[kind]
        struct.pack_into(code, data, at, SIDE, SIDE)
        if kind == "PNG":
            data = bytes(data[:8]) + chunk(b"IHDR", bytes(data[16:29])) + bytes(data[33:])
    return bytes(data)


def tiff(tags, content):
    """One directory behind its content, all numbers long; a list is `count` numbers in a place of their own."""
    body, entries = content + bytes(len(content) % 2), []
    for tag, value in sorted(tags.items()):
        if isinstance(value, list):
            value, count, body = 8 + len(body), len(value), body + struct.pack(f"<{len(value)}I", *value)
        else:
            count = 1
        entries.append(struct.pack("<HHII", tag, 4, count, value))
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(body))
        + body
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
    )


@pytest.mark.fault(41)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "QOI", "PPM", "TIFF", "a TIFF's tile"])
@pytest.mark.parametrize("resize", [False, True])
def test_too_many_pixels_are_refused_before_they_are_unpacked(kind, resize):
    data = large(kind)
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(BadImage, match=r"found 169,000,000 pixels, expected at most 134,217,728; shrink it first"):
        decode.decode(data, Recipe(8, resize=resize))
    assert time.process_time() - begin < 1 and tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.fault(41)
def test_far_too_many_have_a_sentence_of_their_own():
    with pytest.raises(BadImage, match="found more, expected at most 134,217,728; shrink it first"):
        decoded(b"P6 60000 60000 255\n" + bytes(100), 8)


def means_by_cumsum(lines, start, length, count):
    """f64 [count, ...]: the definition, from all running sums at once."""
    sums = np.zeros((len(lines) + 1, *lines.shape[1:]))
    np.cumsum(lines, axis=0, dtype=np.float64, out=sums[1:])
    borders = start + np.arange(count + 1) * (length / count)
    line = np.minimum(borders.astype(np.int64), len(lines) - 1)
    return np.diff(sums[line] + (borders - line)[:, None, None] * lines[line], axis=0) * (count / length)


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("height", "width", "side"), [(61, 40, 40), (40, 61, 13), (97, 64, 32), (8, 90, 1), (31, 31, 7)]
)
def test_shrinking_is_the_definition_to_the_last_bit(height, width, side):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    short = min(height, width)
    rows = means_by_cumsum(pixels, (height - short) / 2, short, side)
    square = means_by_cumsum(rows.transpose(1, 0, 2), (width - short) / 2, short, side).transpose(1, 0, 2)
    found = np.empty((side, width, 3))
    decode._area_means(pixels, (height - short) / 2, short, found)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_array_equal(
        np.asarray(decode.fit(Image.fromarray(pixels), side)), np.rint(square).astype(np.uint8)
    )


# ---- half a TIFF


def strips(count, listed, packing):
    """48 rows of gray in `count` strips, of which `listed` are in the file."""
    pixels = np.asarray(photo(48).convert("L"))
    parts = [packing(part.tobytes()) for part in np.split(pixels, count)][:listed]
    starts = [8 + sum(map(len, parts[:k])) for k in range(listed)]
    kind = 1 if packing is bytes else 8
    tags = {256: 48, 257: 48, 258: 8, 259: kind, 262: 1, 277: 1, 278: 48 // count}
    places = {273: starts, 279: [len(part) for part in parts]}
    return tiff(
        tags | {tag: value if listed > 1 else value[0] for tag, value in places.items()}, b"".join(parts)
    ), pixels


@pytest.mark.fault(41)
@pytest.mark.parametrize("packing", [bytes, zlib.compress])
def test_a_tiff_with_some_of_its_strips_is_bad(packing):
    data, pixels = strips(4, 4, packing)
    np.testing.assert_array_equal(decoded(data, 48)[..., 0], pixels)
    for listed in (1, 2, 3):
        with pytest.raises(BadImage):
            decoded(strips(4, listed, packing)[0], 48)


@pytest.mark.fault(41)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_half_a_jpeg_in_a_tiff_is_bad(keep):
    data = encoded(photo(64), "TIFF", compression="jpeg")
    decoded(data, 64)
    with Image.open(io.BytesIO(data)) as image:
        start, length = image.tag_v2[273][0], image.tag_v2[279][0]
    scan = data.index(b"\xff\xda", start) + 14
    cut = scan + int((start + length - scan) * keep)
    with pytest.raises(BadImage):
        decoded(data[:cut] + b"\xff\xd9" + data[cut + 2 :], 64)


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("how", "mode"),
    [
        *itertools.product((None, "tiff_lzw", "tiff_adobe_deflate", "packbits"), ("RGB", "L", "1", "CMYK", "RGBA")),
        *itertools.product(("jpeg",), ("RGB", "L", "CMYK")),
        ("group4", "1"),
    ],
)
def test_a_whole_tiff_is_not(how, mode):
    for image in (photo(64), Image.new("RGB", (64, 64), (128, 128, 128))):
        decoded(encoded(image.convert(mode), "TIFF", compression=how, tiffinfo={278: 16}), 64)
