"""From an opened image to the RGB pixels that people see: upright, without transparency, at 8 bits.

orientation   a camera notes how it was held (EXIF, 1 to 8); every viewer turns the picture, and so does this
transparency  composed on a background, white unless told otherwise, whatever the file's way of storing it
deep grey     16 bits keep their high byte, which is how Pillow reduces 16-bit colour; 32-bit numbers and floats have no
              range of their own, so their largest decides: up to 1 (floats alone) is white at 1, up to 255 is 8 bits,
              up to 65,535 is 16 bits, anything else is refused
"""

import argparse
import warnings

import numpy as np
from PIL import Image, ImageColor

WHITE = (255, 255, 255)
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
GRAYSCALE_MODES = ("1", "L", "LA", "La", *DEEP)
MODES = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "P", "PA", *GRAYSCALE_MODES)
TRANSPARENT = "transparent"

ORIENTATION, PHOTOMETRIC, BITS = 274, 262, 258  # tags of EXIF and TIFF
TURNS = {  # what makes an image upright that was stored with this orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Kinds = tuple[str, ...]  # what set an image apart from an upright RGB JPEG: ("L",), ("PNG", "RGBA"), mostly ()
Colour = tuple[int, int, int]


class BadImage(Exception):
    """These bytes are no image that can be packed; says why."""


def colour(text: str) -> Colour:
    """A name or notation of PIL.ImageColor, as a command line's option gives it."""
    try:
        found = ImageColor.getrgb(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a colour such as white, gray or #8090a0") from None
    if len(found) == 3 and not all(0 <= value <= 255 for value in found):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a colour that a screen has, such as #8090a0")
    if len(found) != 3:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a colour without transparency")
    return found


def visible(image: Image.Image, background: Colour) -> tuple[Image.Image, Kinds]:
    """The pixels as an RGB image, and what had to be done. BadImage for a mode or a range that nothing here can show.

    The image is opened and not loaded: a loaded one has forgotten how deep its file was.
    """
    if image.mode not in MODES:
        raise BadImage(f"found mode {image.mode}, expected one of {', '.join(MODES)}")
    kinds = [kind for kind in (image.format, image.mode) if kind not in (None, "JPEG", "RGB")]
    key, noted = _transparent_colour(image), orientation(image)
    turned = image.info.get("original_orientation")  # by the reader of HEIF, which then says 1
    noted = turned if turned in TURNS else noted
    image.load()
    turn = TURNS.get(orientation(image))  # None where the reader has turned it, as Pillow's of TIFF does
    if key is not None:
        image.info["transparency"] = key
    if image.mode in DEEP:
        image = _eight_bits(image)
    rgb, shows_background = _on_background(image, background)
    if shows_background:
        kinds.append(TRANSPARENT)
    if noted != 1:
        kinds.append(f"orientation {noted}")
    return rgb if turn is None else rgb.transpose(turn), tuple(sorted(kinds))


def orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF, XMP or TIFF note it; 1 where nothing or nonsense is noted, as viewers have it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            noted = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises nearly anything on a damaged block; the pixels need none of it
        return 1
    return noted if noted in TURNS else 1


def _transparent_colour(image: Image.Image) -> int | tuple[int, ...] | None:
    """A PNG's one transparent gray or colour at the depth of Pillow's pixels; the file has it at its own."""
    key, stored = image.info.get("transparency"), str(image.tile[0][3] if getattr(image, "tile", None) else "")
    if stored == "RGB;16B" and isinstance(key, tuple):
        return tuple(value >> 8 for value in key)
    if stored in ("L;2", "L;4") and isinstance(key, int):
        return key * (85 if stored == "L;2" else 17)
    return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey as an "L" image, or as "LA" where one of its values is transparent."""
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    ):  # 16 bits, whatever Pillow holds them in
        values = values.astype(np.int64)
        if image.format == "TIFF":
            values = values << max(0, 16 - int(image.tag_v2.get(BITS, (16,))[0]))  # 12 bits, say
            if image.tag_v2.get(PHOTOMETRIC) == 0:  # white is zero
                values = 65_535 - values
        white = 65_535.0
    else:
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 65_535:  # false for NaN, too
            raise BadImage(
                f"found mode {image.mode} with values from {low:g} to {high:g}, expected 0 to 1, to 255 or to 65,535"
            )
        white = 1.0 if image.mode == "F" and high <= 1 else 255.0 if high <= 255 else 65_535.0
        if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0:  # white is zero
            values = white - values
    eight = values // 256 if white > 255 else np.rint(values * (255 / white))
    gray = Image.fromarray(eight.astype(np.uint8))
    if isinstance(key := image.info.get("transparency"), int):
        gray.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return gray


def _on_background(image: Image.Image, background: Colour) -> tuple[Image.Image, bool]:
    """RGB, and whether any of the background shows."""
    if not image.has_transparency_data:
        return (image if image.mode == "RGB" else image.convert("RGB")), False
    if image.mode == "La":
        image = image.convert("LA")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return layer.convert("RGB"), False
    rgb = Image.new("RGB", layer.size, background)
    rgb.paste(layer, mask=alpha)
    return rgb, True
