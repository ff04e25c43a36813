"""Plain JPEGs through OpenCV, which takes a third of Pillow's time for 64 px; everything else stays with Pillow.

Both are libjpeg-turbo inside and give the same pixels. That is not assumed but tried, in every process, on
images of each kind before the first real one. A JPEG is plain when its header says 8 bits, grayscale or
three colours, and its last bytes end an image: OpenCV fills what a cut-off file lacks with gray and says
nothing, where Pillow refuses.
"""

import io
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

FRAMES = (0xC0, 0xC1, 0xC2)  # start of frame: baseline, extended, progressive
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless, hierarchical, arithmetic
START_OF_SCAN, PICTURES = 0xDA, 0xE2  # PICTURES: APP2, where an index of several pictures may be


class Header(NamedTuple):
    """What a plain JPEG's header says. colours: 1 or 3."""

    width: int
    height: int
    colours: int


def plain_header(data: bytes) -> Header | None:
    """The header of a plain JPEG; None for anything else, damaged or not."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    at, end = 2, len(data) - 10
    while at < end and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker in FRAMES:
            colours = data[at + 9]
            if data[at + 4] != 8 or colours not in (1, 3):
                return None
            return Header(data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6], colours)
        several = marker == PICTURES and data[at + 4 : at + 8] == b"MPF\0"
        if marker in OTHER_FRAMES or marker == START_OF_SCAN or marker < 0xC0 or several:
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
    """Noise as JPEG: each subsampling, gray, progressive, sides that are no multiple of a block."""
    noise = np.random.default_rng(0).integers(0, 256, (23, 35, 3), dtype=np.uint8)
    samples = []
    for mode, subsampling, progressive in (("RGB", 0, 0), ("RGB", 1, 0), ("RGB", 2, 0), ("RGB", 2, 1), ("L", 0, 0)):
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "JPEG", subsampling=subsampling, progressive=progressive)
        samples.append(file.getvalue())
    return samples
