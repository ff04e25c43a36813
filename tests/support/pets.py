"""A folder as people have it: class folders at its top, photos of a phone that lie on their side, WebP, PNGs with
transparent pixels, one file that is broken, some in the wrong folder; no validation set. Cats are stripes across, dogs
blobs of red."""

from pathlib import Path

import numpy as np
from PIL import Image

ON_ITS_SIDE = 6  # EXIF orientation of a phone held upright
OTHER = {"cat": "dog", "dog": "cat"}


def drawn(label: str, rng: np.random.Generator) -> Image.Image:
    height, width = rng.integers(40, 80, 2)
    pixels = rng.normal(110, 30, (height, width, 3))
    if label == "cat":
        pixels[::4, :, 1] += 90
    else:
        y, x = np.ogrid[:height, :width]
        pixels[np.hypot(y - height / 2, x - width / 2) < height / 4, 0] += 110
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_pets(folder: Path, each: int = 20, seed: int = 0, broken: bool = True) -> None:
    """`each` images of cat/ and of dog/ below `folder`."""
    rng = np.random.default_rng(seed)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            shown = OTHER[label] if number % 9 == 8 else label  # somebody put it there by mistake
            image, name = drawn(shown, rng), folder / label / f"IMG_{number:04d}"
            if number % 4 == 0:
                stored = image.transpose(Image.Transpose.ROTATE_90)
                exif = stored.getexif()
                exif[274] = ON_ITS_SIDE
                stored.save(name.with_suffix(".JPG"), exif=exif, quality=92)
            elif number % 4 == 1:
                image.save(name.with_suffix(".webp"))
            elif number % 4 == 2:
                y, x = np.ogrid[: image.height, : image.width]
                corner = (y + x < 20).astype(np.uint8)
                image.putalpha(Image.fromarray(255 * (1 - corner)))
                image.save(name.with_suffix(".png"))
            else:
                image.save(name.with_suffix(".jpeg"))
    if broken:
        whole = (folder / "cat/IMG_0000.JPG").read_bytes()
        (folder / "cat/IMG_9999.JPG").write_bytes(whole[: len(whole) // 2])
