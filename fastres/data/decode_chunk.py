"""What one decoding process does with a chunk of images; apart from decode_pool.py, which runs as a file of its own."""

import hashlib
import io
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from fastres.data.convert import BadImage, Kinds
from fastres.data.decode import PLAIN, Recipe, decode

UNREADABLE = "cannot be read"  # begins the fault of a file that the disk does not give


class Reader(Protocol):
    """Reads one file; picklable, since it lives in whichever process decodes."""

    def read(self, locator: Any) -> bytes: ...


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
            results.append(f"{UNREADABLE} ({error.strerror or error})")
    return results


def _as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
