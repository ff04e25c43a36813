"""Plain JPEGs through OpenCV, which takes a third of Pillow's time for 64 px; everything else stays with Pillow.

Both are libjpeg-turbo inside and give the same pixels. That is not assumed but tried, in every process, on
images of each kind before the first real one. A JPEG is plain when its header says baseline, 8 bits,
grayscale or three colours, and one scan follows without a marker inside up to the last bytes, which end the
image. OpenCV fills what a cut file lacks with gray and says nothing, if it finds the image's end; so it is given
other bits there (see whole.py), and a decoder that runs out of them gives up.
A JPEG that notes an orientation other than upright, or any notes that are not plain EXIF, is not plain either.
"""

import io
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastres.data.whole import FILLER

BASELINE, TABLES, START_OF_SCAN = 0xC0, (0xC4, 0xDB, 0xFE), 0xDA  # Huffman, quantisation; comments
APPLICATION, PICTURES = range(0xE0, 0xF0), 0xE2  # PICTURES: where an index of several pictures may be
NOTES, EXIF = 0xE1, b"Exif\0\0"  # what a camera says of the picture, how it was held among it
ORIENTATION, UPRIGHT = 274, 1
HUFFMAN = b"\xff\xc4"
MARKER = re.compile(rb"\xff[^\x00]")  # in a scan; 0xff as data is followed by 0


class Header(NamedTuple):
    """What a plain JPEG's header says. colours: 1 or 3."""

    width: int
    height: int
    colours: int


def plain_header(data: bytes) -> Header | None:
    """The header of a plain JPEG; None for anything else, damaged or not."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    header, noted, at, end = None, False, 2, len(data) - 10
    while at < end and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker == START_OF_SCAN:
            inside = MARKER.search(data, at + 2 + length)
            whole = header and inside and inside.start() == len(data) - 2 and length == 6 + 2 * header.colours
            return header if whole else None
        if marker == BASELINE and header is None:
            colours = data[at + 9]
            if data[at + 4] != 8 or colours not in (1, 3):
                return None
            header = Header(data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6], colours)
        elif marker not in TABLES and marker not in APPLICATION:
            return None
        if marker == PICTURES and data[at + 4 : at + 8] == b"MPF\0":
            return None
        if marker == NOTES:
            if noted or not _upright(data[at + 4 : at + 2 + length]):
                return None
            noted = True
        at += 2 + length
    return None


def _upright(notes: bytes) -> bool:
    """Whether a segment is EXIF that notes no turning; False for whatever is not well understood."""
    if not notes.startswith(EXIF):
        return False
    tiff = notes[len(EXIF) :]
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return False

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    first = number(4, 4)
    for at in range(first + 2, min(first + 2 + 12 * number(first, 2), len(tiff)), 12):
        if number(at, 2) == ORIENTATION:
            return number(at + 2, 2) == 3 and number(at + 4, 4) == 1 and number(at + 8, 2) == UPRIGHT  # one short
    return True


Decoder = Callable[[bytes, int], np.ndarray | None]


@cache
def fast_decoder() -> Decoder | None:
    """(bytes of a plain JPEG, its colours) -> u8 [H, W, 3] RGB, or None where some of it is missing; None itself
    where OpenCV is absent or not Pillow's equal."""
    try:
        import cv2

        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    except (ImportError, AttributeError):  # IMREAD_COLOR_RGB came with 4.10
        return None

    *_, colour, gray = _samples()
    standard = {1: _tables(gray), 3: _tables(colour)}

    def decode(data: bytes, colours: int) -> np.ndarray | None:
        pixels = cv2.imdecode(np.frombuffer(data[:-2] + FILLER, np.uint8), flags)
        if pixels is None or data.startswith(standard[colours], data.find(HUFFMAN)):
            return pixels
        other = cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # by other tables the filler may end a cut block
        return pixels if np.array_equal(pixels, other) else None

    return decode if all(_agrees(decode, data) for data in _samples()) else None


def _tables(data: bytes) -> bytes:
    """The Huffman tables as most JPEGs have them: those of libjpeg, which are the standard's."""
    return data[data.index(HUFFMAN) : data.index(b"\xff\xda")]


def _agrees(decode: Decoder, data: bytes) -> bool:
    """Of the whole image, and that it is given up when it is cut."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB"))
        colours = len(image.getbands())
    return np.array_equal(decode(data, colours), pixels) and decode(data[:-9] + data[-2:], colours) is None


def _samples() -> list[bytes]:
    """Noise as JPEG: each subsampling, gray, sides that are no multiple of a block."""
    noise = np.random.default_rng(0).integers(0, 256, (23, 35, 3), dtype=np.uint8)
    samples = []
    for mode, subsampling in (("RGB", 0), ("RGB", 1), ("RGB", 2), ("L", 0)):
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "JPEG", subsampling=subsampling)
        samples.append(file.getvalue())
    return samples
