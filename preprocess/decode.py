"""From an image's bytes to checked RGB pixels, and what had to be converted on the way."""

import io
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastres.errors import DataError, UsageError
from preprocess.tiny_imagenet import Record
from preprocess.tree import Reader, Tree

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
GRAYSCALE_MODES = ("1", "L", "LA")
MODES = ("RGB", "RGBA", "CMYK", "YCbCr", "P", "PA", *GRAYSCALE_MODES)
PROBES = 15  # images asked for their size before packing

Kinds = tuple[str, ...]  # what set an image apart from an RGB JPEG: ("L",), ("PNG", "RGBA"), mostly ()


class BadImage(Exception):
    """These bytes are no image that can be packed; says why."""


def decode(data: bytes, side: int) -> tuple[np.ndarray, Kinds]:
    """u8 [side, side, 3] RGB and its kinds. Transparency is dropped; an animation gives its first frame.

    The name's ending is not trusted: a PNG named .JPEG is read as what it is.
    """
    try:
        image = _open(data)
        if image.size != (side, side):
            raise BadImage(f"found {image.width}x{image.height} pixels, expected {side}x{side}")
        if image.mode not in MODES:
            raise BadImage(f"found mode {image.mode}, expected one of {', '.join(MODES)}")
        image.load()
        kinds = tuple(sorted(k for k in (image.format, image.mode) if k not in ("JPEG", "RGB")))
        if image.mode == "P":  # by way of RGBA, which knows every kind of palette transparency
            image = image.convert("RGBA")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), kinds
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise BadImage(f"cannot be decoded ({str(error) or type(error).__name__})") from None


def _open(data: bytes) -> Image.Image:
    """The image with its header read and its pixels not."""
    if not data:
        raise BadImage("found an empty file, expected an image")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"found {data[:12]!r} at its start, expected {', '.join(FORMATS)}") from None


def decode_many(reader: Reader, locators: list[Any], side: int, pixels: np.ndarray) -> list[Kinds | str]:
    """Decode into pixels u8 [n, side, side, 3]; for each image its kinds, or why it is bad (its row is then undefined).

    DataError from a damaged zip passes through: that is not one image's fault.
    """
    results: list[Kinds | str] = []
    for row, locator in enumerate(locators):
        try:
            pixels[row], kinds = decode(reader.read(locator), side)
            results.append(kinds)
        except BadImage as bad:
            results.append(str(bad))
        except OSError as error:
            results.append(f"cannot be read ({error.strerror or error})")
    return results


def side_of(tree: Tree, records: list[Record]) -> int:
    """S: the side that most of the first images have, so that one odd image among them is named, not obeyed."""
    sizes: Counter[tuple[int, int]] = Counter()
    for record in records[:PROBES]:
        try:
            sizes[_open(tree.read(record.path)).size] += 1
        except DataError:
            raise
        except Exception:  # it will be listed with its reason when its turn comes
            continue
    if not sizes:
        raise DataError(
            f"{tree.name}: found no image in the first {len(records[:PROBES])} files of train, the first being "
            f"{records[0].path}, expected {', '.join(FORMATS)}; get the data set anew"
        )
    (width, height), _ = sizes.most_common(1)[0]
    if width != height:
        raise DataError(
            f"{tree.name}: {records[0].path} and others: found {width}x{height} pixels, expected squares; "
            "crop the images first"
        )
    if width % 8:
        raise UsageError(
            f"{tree.name}: found images of {width}x{width} pixels, expected a side that is a multiple of 8 "
            "(a crop is 7/8 of it); resize the images first"
        )
    return width
