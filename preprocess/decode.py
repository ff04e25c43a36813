"""From an image's bytes to checked RGB pixels, and what had to be converted on the way."""

import hashlib
import io
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastres.errors import DataError, UsageError
from preprocess.fast_decode import fast_decoder, plain_header
from preprocess.tiny_imagenet import Record
from preprocess.tree import Reader, Tree

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
GRAYSCALE_MODES = ("1", "L", "LA")
MODES = ("RGB", "RGBA", "CMYK", "YCbCr", "P", "PA", *GRAYSCALE_MODES)
RESIZED = "resized"
PROBES = 15  # images asked for their size before packing

Kinds = tuple[str, ...]  # what set an image apart from an RGB JPEG: ("L",), ("PNG", "RGBA"), mostly ()
PLAIN: tuple[Kinds, ...] = ((), ("L",))  # JPEGs that every decoder of JPEG turns into the same pixels


class Recipe(NamedTuple):
    """What every image becomes.

    side    S, pixels
    resize  whether an image of another size is brought to S x S or refused
    files   whether the writers need an image file to each image's pixels
    """

    side: int
    resize: bool = False
    files: bool = False


class Good(NamedTuple):
    """What is known of an image besides its pixels.

    kinds        see Kinds
    fingerprint  128 bits over the pixels, to find duplicates
    file         (ending, bytes) of a file that decodes to these pixels: the original JPEG where it is plain and was
                 not resized, else a PNG; only where the recipe asks for files
    """

    kinds: Kinds
    fingerprint: bytes
    file: tuple[str, bytes] | None


class BadImage(Exception):
    """These bytes are no image that can be packed; says why."""


def decode(data: bytes, recipe: Recipe) -> tuple[np.ndarray, Kinds]:
    """u8 [S, S, 3] RGB and its kinds. Transparency is dropped; an animation gives its first frame.

    The name's ending is not trusted: a PNG named .JPEG is read as what it is.
    """
    header, fast = plain_header(data), fast_decoder()
    if header and fast and header.width == header.height == recipe.side:
        pixels = fast(data)
        if pixels is not None:
            return pixels, ("L",) if header.colours == 1 else ()
    return _decode_any(data, recipe)


def _decode_any(data: bytes, recipe: Recipe) -> tuple[np.ndarray, Kinds]:
    """The same through Pillow, which knows every kind of file and why one is bad."""
    try:
        image = _open(data)
        fits = image.size == (recipe.side, recipe.side)
        if not fits and not recipe.resize:
            raise BadImage(f"found {image.width}x{image.height} pixels, expected {recipe.side}x{recipe.side}")
        if image.mode not in MODES:
            raise BadImage(f"found mode {image.mode}, expected one of {', '.join(MODES)}")
        image.load()
        kinds = tuple(sorted(k for k in (image.format, image.mode) if k not in ("JPEG", "RGB")))
        if image.mode == "P":  # by way of RGBA, which knows every kind of palette transparency
            image = image.convert("RGBA")
        image = image if image.mode == "RGB" else image.convert("RGB")
        if not fits:
            image, kinds = fit(image, recipe.side), (*kinds, RESIZED)
        return np.asarray(image), kinds
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise BadImage(f"cannot be decoded ({str(error) or type(error).__name__})") from None


def fit(image: Image.Image, side: int) -> Image.Image:
    """The centre square of an RGB image, its short side brought to `side`.

    Shrinking averages over the area that each new pixel covers; enlarging is bicubic.
    """
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    if short < side:
        return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
    rows = _area_means(np.asarray(image), top, short, side)
    square = _area_means(rows.transpose(1, 0, 2), left, short, side).transpose(1, 0, 2)
    return Image.fromarray(np.rint(square).astype(np.uint8))


def _area_means(lines: np.ndarray, start: float, length: float, count: int) -> np.ndarray:
    """f64 [count, ...]: `count` equal stretches of the first axis from `start` on, `length` in all, each averaged.

    By differences of running sums, whole numbers for u8. A line that a border cuts counts by its share on either
    side, which Pillow's box filter ignores.
    """
    sums = np.zeros((len(lines) + 1, *lines.shape[1:]), np.int32 if lines.dtype == np.uint8 else np.float64)
    np.cumsum(lines, axis=0, out=sums[1:])
    borders = start + np.arange(count + 1) * (length / count)
    line = np.minimum(borders.astype(np.int64), len(lines) - 1)
    up_to = sums[line] + (borders - line)[:, None, None] * lines[line]
    return np.diff(up_to, axis=0) * (count / length)


def _open(data: bytes) -> Image.Image:
    """The image with its header read and its pixels not."""
    if not data:
        raise BadImage("found an empty file, expected an image")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"found {data[:12]!r} at its start, expected {', '.join(FORMATS)}") from None


def decode_many(reader: Reader, locators: list[Any], recipe: Recipe, pixels: np.ndarray) -> list[Good | str]:
    """Decode into pixels u8 [n, S, S, 3]; what else is known of each, or why it is bad (its row is then undefined).

    DataError from a damaged zip passes through: that is not one image's fault.
    """
    results: list[Good | str] = []
    for row, locator in enumerate(locators):
        try:
            data = reader.read(locator)
            pixels[row], kinds = decode(data, recipe)
            file = None
            if recipe.files:
                file = ("jpg", data) if kinds in PLAIN else ("png", _as_png(pixels[row]))
            results.append(Good(kinds, hashlib.blake2b(pixels[row], digest_size=16).digest(), file))
        except BadImage as bad:
            results.append(str(bad))
        except OSError as error:
            results.append(f"cannot be read ({error.strerror or error})")
    return results


def _as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


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
            "bring them to one size with --side S"
        )
    if width % 8:
        raise UsageError(
            f"{tree.name}: found images of {width}x{width} pixels, expected a side that is a multiple of 8 "
            "(a crop is 7/8 of it); bring them to one with --side S"
        )
    return width
