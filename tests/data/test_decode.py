"""data/decode.py and data/convert.py: every kind of file becomes the picture that people see."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from fastres.data import decode, decode_chunk, fast_decode
from fastres.data.convert import BadImage
from fastres.data.formats import format_of
from tests.support.pictures import GREY, SIDE, UPRIGHT, encoded, pixels
from tests.support.trees import picture


def as_stored(orientation):
    """The picture as a camera stores it that notes `orientation`: what exif_transpose turns back."""
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)
    image = Image.fromarray(UPRIGHT)
    if back is None:
        return image
    image.info["exif"] = note(back)
    return ImageOps.exif_transpose(image)


def note(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


# ---- orientation


@pytest.mark.fault(32)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(kind, orientation):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    how = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    if kind == "TIFF":
        how["tiffinfo"] = {274: orientation}
    else:
        how["exif"] = note(orientation)
    found, kinds = pixels(encoded(as_stored(orientation), kind, **how))
    assert np.abs(found.astype(int) - UPRIGHT).max() <= (6 if kind == "AVIF" else 0)
    assert set(kinds) == {kind} | ({f"orientation {orientation}"} if orientation > 1 else set())


@pytest.mark.fault(32)
@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phone_jpeg_is_turned_before_anything_else(orientation, resize):
    """An oblong one, too: its centre square is that of the upright picture."""
    shape = (40, 24) if resize else (SIDE, SIDE)
    stored = np.asarray(Image.fromarray(picture(64, 5)).resize(shape))
    plain, noted = (encoded(Image.fromarray(stored), "JPEG", quality=95, exif=e) for e in (b"", note(orientation)))
    with Image.open(io.BytesIO(noted)) as image:
        expected = ImageOps.exif_transpose(image)
    assert expected.size == (shape[::-1] if orientation > 4 else shape)
    found, kinds = pixels(noted, resize=resize)
    np.testing.assert_array_equal(found, np.asarray(decode.fit(expected, SIDE) if resize else expected))
    assert (f"orientation {orientation}" in kinds) == (orientation > 1)
    assert np.array_equal(found, pixels(plain, resize=resize)[0]) == (orientation == 1)


def test_only_upright_jpegs_take_the_fast_way(monkeypatch):
    image = Image.fromarray(UPRIGHT)
    upright, turned = (encoded(image, "JPEG", exif=note(n)) for n in (1, 6))
    nothing = Image.Exif()
    nothing[0x010F] = "a camera"
    for data in (encoded(image, "JPEG"), upright, encoded(image, "JPEG", exif=nothing.tobytes())):
        assert fast_decode.plain_header(data) is not None
    xmp = encoded(image, "JPEG", xmp=b'<x tiff:Orientation="6"/>')
    broken = upright.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    for data in (turned, xmp, broken, encoded(image, "JPEG", exif=note(9))):
        assert fast_decode.plain_header(data) is None
    assert pixels(xmp)[1] == ("orientation 6",)
    for data in (broken, encoded(image, "JPEG", exif=note(9))):  # no orientation that a viewer knows
        np.testing.assert_array_equal(pixels(data)[0], pixels(encoded(image, "JPEG"))[0])


# ---- deep grey


def deep(kind):
    wide = GREY.astype(np.uint16) * 257
    if kind in ("I;16 PNG", "I;16 TIFF", "I;16 JPEG2000"):
        return encoded(Image.fromarray(wide), kind.split()[1])
    if kind == "I;16B TIFF":
        return encoded(Image.fromarray(wide.astype(">u2")), "TIFF")
    if kind == "white is zero":
        return encoded(Image.fromarray(65_535 - wide), "TIFF", tiffinfo={262: 0})
    if kind == "PGM of 16 bits":
        return encoded(Image.fromarray(wide), "PPM")
    if kind.startswith("I "):
        return encoded(Image.fromarray(GREY.astype(np.int32) * (257 if kind == "I of 16 bits" else 1)), "TIFF")
    scale = {"F to 1": 1 / 255, "F to 255": 1, "F to 65535": 257, "PFM": 1 / 255}[kind]
    return encoded(Image.fromarray(GREY.astype(np.float32) * np.float32(scale)), "PPM" if kind == "PFM" else "TIFF")


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "kind",
    ["I;16 PNG", "I;16 TIFF", "I;16 JPEG2000", "I;16B TIFF", "white is zero", "PGM of 16 bits", "I of 16 bits"]
    + ["I of 8 bits", "F to 1", "F to 255", "F to 65535", "PFM"],
)
def test_deep_grey_keeps_its_brightness(kind):
    found, kinds = pixels(deep(kind))
    np.testing.assert_array_equal(found, np.repeat(GREY[..., None], 3, 2))
    assert any(k.startswith(("I", "F")) for k in kinds)


@pytest.mark.parametrize("value", [np.nan, -3.0, 70_000.0])
def test_floats_of_no_known_range_are_refused(value):
    values = GREY.astype(np.float32)
    values[2, 3] = value
    with pytest.raises(BadImage, match="values from .* to .*, expected 0 to 1"):
        pixels(encoded(Image.fromarray(values), "TIFF"))


# ---- other kinds


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(picture(SIDE, k)) for k in (3, 4)]
    for kind, how in (("PNG", {}), ("WEBP", {"lossless": True})):
        found, _ = pixels(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **how))
        np.testing.assert_array_equal(found, UPRIGHT)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "1", "P"])
def test_other_modes_are_pillows(mode):
    image = Image.fromarray(UPRIGHT).convert(mode)
    data = encoded(image, "PNG" if mode in ("1", "P") else "TIFF")
    with Image.open(io.BytesIO(data)) as again:
        np.testing.assert_array_equal(pixels(data)[0], np.asarray(again.convert("RGB")))
    assert mode in pixels(data)[1]


@pytest.mark.fault(32)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "TIFF", "JPEG2000", "PPM", "QOI", "SGI"])
def test_the_first_bytes_say_what_it_is(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    data = encoded(Image.fromarray(UPRIGHT), kind)
    assert format_of(data[:64]) == kind
    assert pixels(data)[0].shape == (SIDE, SIDE, 3)


def test_heic_is_an_image_that_needs_a_library(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(BadImage, match="pip install pillow-heif"):
        pixels(data)


@pytest.mark.parametrize(
    "text", [b"BMX bikes are", b"P5 is a processor", b"II is two", b"", b"MMMM", b"\0\0\0\x18ftypmp42isom"]
)
def test_texts_and_films_are_no_images(text):
    assert format_of(text) is None


def test_png_notes_after_the_pixels():
    """An eXIf chunk may follow the pixels; viewers obey it there, too."""
    data = encoded(as_stored(6), "PNG", exif=note(6))
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    found, kinds = pixels(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    np.testing.assert_array_equal(found, UPRIGHT)
    assert "orientation 6" in kinds


def test_a_turned_jpeg_goes_to_dali_as_its_pixels():
    """DALI is told not to turn anything: what it gets must be upright already, as a file of its own."""
    image, reader = as_stored(6), SimpleNamespace(read=lambda data: data)
    files = [encoded(image, "JPEG", exif=note(6)), encoded(image, "JPEG", exif=note(1)), encoded(image, "PNG")]
    rows = np.empty((3, SIDE, SIDE, 3), np.uint8)
    good = decode_chunk.decode_many(reader, files, decode.Recipe(SIDE, files=True), rows)
    assert [g.file[0] for g in good] == ["png", "jpg", "png"]
    for row, known in zip(rows, good):
        with Image.open(io.BytesIO(known.file[1])) as stored:
            np.testing.assert_array_equal(np.asarray(stored), row)
    assert not np.array_equal(rows[0], rows[1])
