"""Plain JPEGs through OpenCV, which takes a third of Pillow's time for 64 px; everything else stays with Pillow.

Both are libjpeg-turbo inside and give the same pixels. That is not assumed but tried, in every process, on
images of each kind before the first real one. A JPEG is plain when its header says baseline, 8 bits,
grayscale or three colours, and one scan follows without a marker inside up to the last bytes, which end the
image: OpenCV fills what a cut-off or broken file lacks with gray and says nothing, where Pillow refuses.
"""

import io
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

BASELINE, TABLES, START_OF_SCAN = 0xC0, (0xC4, 0xDB, 0xFE), 0xDA  # Huffman, quantisation; comments
APPLICATION, PICTURES = range(0xE0, 0xF0), 0xE2  # PICTURES: where an index of several pictures may be
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
    header, at, end = None, 2, len(data) - 10
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
        several = marker == PICTURES and data[at + 4 : at + 8] == b"MPF\0"
        if several:
            return None
        at += 2 + length
    return None


Decoder = Callable[[bytes], np.ndarray | None]


@cache
def fast_decoder() -> Decoder | None:
    """bytes of a plain JPEG -> u8 [H, W, 3] RGB or None; None itself where OpenCV is absent or not Pillow's equal."""
    try:
        import cv2

        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    except (ImportError, AttributeError):  # IMREAD_COLOR_RGB came with 4.10
        return None

    def decode(data: bytes) -> np.ndarray | None:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)

    return decode if all(_agrees(decode, data) for data in _samples()) else None


def _agrees(decode: Decoder, data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return np.array_equal(decode(data), np.asarray(image.convert("RGB")))


def _samples() -> list[bytes]:
    """Noise as JPEG: each subsampling, gray, sides that are no multiple of a block."""
    noise = np.random.default_rng(0).integers(0, 256, (23, 35, 3), dtype=np.uint8)
    samples = []
    for mode, subsampling in (("RGB", 0), ("RGB", 1), ("RGB", 2), ("L", 0)):
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "JPEG", subsampling=subsampling)
        samples.append(file.getvalue())
    return samples
