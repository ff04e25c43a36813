"""Writes small data sets in the layout of Tiny ImageNet, with the oddities that real copies have.

Independent of the packer and of the small world, so that neither vouches for itself: used to test the packer
and, at 64 px, whatever needs a data set that this project did not make.

    truth = write_tree(tmp_path / "tiny", classes=200, side=64, train=3, val=2, test=40)
    truth["train/n01500037/images/n01500037_2.JPEG"]     # -> "n01500037", None for an image of test
"""

import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# What write_tree(oddities=True) hides: the first images of the first three classes, val_0 and test_1.
ODDITIES = {
    "train": {"grayscale": 1, "converted": {"CMYK": 1, "L": 1, "PNG": 1}},
    "val": {"grayscale": 1, "converted": {"L": 1}},
    "test": {"grayscale": 1, "converted": {"L": 1, "PNG": 1}},
}


def wnid(k: int) -> str:
    """The k-th class id in sorted order."""
    return f"n{1_500_000 + 37 * k:08d}"


def picture(side: int, seed: int) -> np.ndarray:
    """u8 [side, side, 3]: a smooth pattern that no two seeds share."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR))


def write_image(path: Path, pixels: np.ndarray, oddity: str = "") -> None:
    """A JPEG, or a "L" or "CMYK" one, or a "PNG" or a grayscale "PNG L" whatever the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if oddity in ("L", "CMYK", "PNG L"):
        image = image.convert(oddity.split()[-1])
    image.save(path, "PNG" if oddity.startswith("PNG") else "JPEG", quality=90)


def read_image(path: Path) -> np.ndarray:
    """u8 [side, side, 3] by the plainest way."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def write_tree(
    root: Path,
    *,
    classes: int = 4,
    side: int = 16,
    train: int = 6,
    val: int = 3,
    test: int = 12,
    val_layout: str = "flat",
    newline: str = "\n",
    wnids_order: str = "shuffled",
    oddities: bool = True,
    most_val: int | None = None,
) -> dict[str, str | None]:
    """Write the tree; train and val are images per class, test and most_val in all. Returns path -> class id.

    val_layout: where val_k.JPEG of class W lies, with annotations only in the first: "flat" val/images/,
    "sorted" val/W/images/, "bare" val/W/, "inner" val/images/W/.
    """
    rng = np.random.default_rng(classes)
    ids = [wnid(k) for k in range(classes)]
    odd = dict(zip((f"train/{w}/images/{w}_0.JPEG" for w in ids), ("L", "CMYK", "PNG")))
    odd |= {"val_0.JPEG": "L", "test_1.JPEG": "PNG L"}
    truth: dict[str, str | None] = {}
    for w in ids:
        truth |= {f"train/{w}/images/{w}_{i}.JPEG": w for i in range(train)}
    owners = rng.permutation(np.repeat(np.arange(classes), val))[:most_val]
    folder = {"flat": "val/images", "sorted": "val/{}/images", "bare": "val/{}", "inner": "val/images/{}"}[val_layout]
    truth |= {f"{folder.format(ids[k])}/val_{i}.JPEG": ids[k] for i, k in enumerate(owners)}
    truth |= {f"test/images/test_{i}.JPEG": None for i in range(test)}
    seeds = {name: seed for seed, name in enumerate(path.rsplit("/", 1)[-1] for path in truth)}
    for path in truth:
        name = path.rsplit("/", 1)[-1]
        oddity = odd.get(path, odd.get(name, "")) if oddities else ""
        write_image(root / path, picture(side, seeds[name]), oddity)
    box = f"0\t0\t{side - 1}\t{side - 1}"
    for w in ids:
        lines = [f"{w}_{i}.JPEG\t{box}" for i in range(train)]
        write_lines(root / f"train/{w}/{w}_boxes.txt", lines, newline)
    if val_layout == "flat":
        lines = [f"val_{i}.JPEG\t{ids[k]}\t{box}" for i, k in enumerate(owners)]
        write_lines(root / "val/val_annotations.txt", lines, newline)
    listed = list(rng.permutation(ids)) if wnids_order == "shuffled" else ids
    write_lines(root / "wnids.txt", listed, newline)
    words = [f"{w}\tthing {k}, also called {k}" for k, w in enumerate(ids)] + ["n99999999\tnot in this data set"]
    write_lines(root / "words.txt", words, newline)
    return truth


def write_lines(path: Path, lines: list[str], newline: str = "\n") -> None:
    path.write_bytes("".join(f"{line}{newline}" for line in lines).encode())


def zip_tree(root: Path, target: Path, prefix: str = "tiny-imagenet-200/") -> Path:
    """The tree as a zip, its members named `prefix` + path; deflated and stored ones mixed, folders listed."""
    with zipfile.ZipFile(target, "w") as archive:
        for i, path in enumerate(sorted(root.rglob("*"))):
            how = zipfile.ZIP_STORED if i % 3 == 0 else zipfile.ZIP_DEFLATED
            archive.write(path, prefix + str(path.relative_to(root)), how)
    return target


class DyingReader:
    """A reader whose process ends in the middle of its work; importable, as a worker needs it."""

    def read(self, locator: str) -> bytes:
        os._exit(9)


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    """train/<label>/<label> <number>.png alone, so many of each label, of 16 pixels."""
    for k, (label, count) in enumerate(counts.items()):
        for i in range(count):
            write_image(root / f"train/{label}/{label} {i}.png", picture(16, 100 * k + i), "PNG")
    return root
