"""From an image's bytes to checked RGB pixels, and what had to be converted on the way."""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastres.data.convert import WHITE, BadImage, Colour, Kinds, visible
from fastres.data.fast_decode import fast_decoder, plain_header
from fastres.data.formats import HEAD_BYTES, MISSING, NAMES, format_of
from fastres.data.whole import SMALL, check_listed, check_whole, read_jpeg

RESIZED = "resized"
MOST_PIXELS = 1 << 27  # of one image, before anything of it is unpacked: some 20 bytes each while it is
TOO_LARGE = f"found {{}}, expected at most {MOST_PIXELS:,}; shrink it first"
PLAIN: tuple[Kinds, ...] = ((), ("L",))  # JPEGs that every decoder of JPEG turns into the same pixels


class Recipe(NamedTuple):
    """What every image becomes.

    side        S, pixels
    resize      whether an image of another size is brought to S x S or refused
    files       whether the writers need an image file to each image's pixels
    background  what shows through transparent pixels
    """

    side: int
    resize: bool = False
    files: bool = False
    background: Colour = WHITE


def decode(data: bytes, recipe: Recipe) -> tuple[np.ndarray, Kinds]:
    """u8 [S, S, 3] RGB, as convert.py says, and its kinds. An animation gives its first frame.

    There is no name whose ending could be trusted: a PNG named .JPEG is read as what it is.
    """
    header, fast = plain_header(data), fast_decoder()
    if header and fast and header.width == header.height == recipe.side:
        pixels = fast(data, header.colours)
        if pixels is not None:
            return pixels, ("L",) if header.colours == 1 else ()
    return _decode_any(data, recipe)


def decode_image(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """u8 [S, S, 3] of an image that is open already, as `decode` has it of a lossless file. BadImage for a mode or a
    range that cannot be shown."""
    rgb, _ = visible(image, recipe.background)
    return np.asarray(rgb if rgb.size == (recipe.side, recipe.side) else fit(rgb, recipe.side))


def _decode_any(data: bytes, recipe: Recipe) -> tuple[np.ndarray, Kinds]:
    """The same through Pillow, which knows every kind of file and why one is bad."""
    jpeg = read_jpeg(data) if data.startswith(b"\xff\xd8") else None
    if jpeg and jpeg.scans == 1 and len(data) > SMALL:
        with contextlib.suppress(BadImage):  # a whole scan needs no end; without one, Pillow says that a cut one is cut
            return _through_pillow(jpeg.filled(data), recipe, lambda image: None)
    return _through_pillow(data, recipe, lambda image: check_whole(image, data, jpeg))


def _through_pillow(data: bytes, recipe: Recipe, check: Callable[[Image.Image], None]) -> tuple[np.ndarray, Kinds]:
    """check: is given the image as it was loaded."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            image = open_image(data)
            fits = image.size == (recipe.side, recipe.side)
            if not fits and not recipe.resize:
                raise BadImage(f"found {image.width}x{image.height} pixels, expected {recipe.side}x{recipe.side}")
            check_listed(image)
            stored = image
            image, kinds = visible(stored, recipe.background)
            check(stored)
        if stored.format == "TIFF" and any("Truncated" in str(warning.message) for warning in said):
            raise BadImage("is truncated: found less than its own notes say")
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
    rows, square = np.empty((image.width, side, 3)), np.empty((side, side, 3))  # both [columns, rows, 3]
    _area_means(np.asarray(image), top, short, rows.transpose(1, 0, 2))
    _area_means(rows, left, short, square)
    return Image.fromarray(np.rint(square).astype(np.uint8).transpose(1, 0, 2))


def _area_means(lines: np.ndarray, start: float, length: float, means: np.ndarray) -> None:
    """Into means f64 [count, ...]: `count` equal stretches of the first axis from `start` on, `length` in all, each
    averaged.

    By differences of a running sum, exact for u8. A line that a border cuts counts by its share on either side, which
    Pillow's box filter ignores. Whole lines are added one by one: numpy's cumsum along the first axis takes four times
    as long, and its sums fill memory.
    """
    count = len(means)
    borders = start + np.arange(count + 1) * (length / count)
    cut = np.minimum(borders.astype(np.int64), len(lines) - 1)
    total, done, before = np.zeros(lines.shape[1:]), 0, None
    for k, (line, share) in enumerate(zip(cut.tolist(), (borders - cut).tolist())):
        for whole in lines[done:line]:
            total += whole
        done, up_to = line, lines[line] * share
        up_to += total
        if before is not None:
            np.subtract(up_to, before, out=means[k - 1])
        before = up_to
    means *= count / length


def open_image(data: bytes) -> Image.Image:
    """The image with its header read and its pixels not."""
    if not data:
        raise BadImage("found an empty file, expected an image")
    name = format_of(data[:HEAD_BYTES])
    if name is None:
        raise BadImage(f"found {data[:12]!r} at its start, expected {NAMES}")
    _load_plugin(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=(name,))
    except (UnidentifiedImageError, KeyError):
        how = f"; {MISSING[name]}" if name in MISSING else ""
        raise BadImage(f"begins like {name}, which Pillow cannot read here or which is damaged{how}") from None
    except Image.DecompressionBombError:
        raise BadImage(TOO_LARGE.format("more")) from None
    tile = (
        [image.tag_v2.get(tag, 1) for tag in (322, 323)] if image.format == "TIFF" else (1, 1)
    )  # TIFF unpacks a whole
    pixels = max(image.width * image.height, tile[0] * tile[1])
    if pixels > MOST_PIXELS:
        raise BadImage(TOO_LARGE.format(f"{pixels:,} pixels"))
    return image


def _load_plugin(name: str) -> None:
    """Formats that Pillow leaves to other packages, where one is installed."""
    if name in MISSING and name not in Image.OPEN:
        try:
            if name == "HEIF":
                from pillow_heif import register_heif_opener

                register_heif_opener()
            else:
                import pillow_jxl  # noqa: F401 - importing it registers it
        except ImportError:
            raise BadImage(f"is {name}, which Pillow alone cannot read; {MISSING[name]}") from None
