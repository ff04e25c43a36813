"""Writes a World as a Tiny-ImageNet tree; every image of it can also be made alone, with the same pixels."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastres.machine.errors import DataError
from preprocess.owned import MARKER
from preprocess.small_world.classes import class_table, wnids
from preprocess.small_world.render import paint_scenes
from preprocess.small_world.scene import Draws, draw_scenes

RECIPE = 4  # raise it when a change moves pixels, so that old trees are made anew
CHUNK = 50


@dataclass(frozen=True, kw_only=True)
class World:
    """Sizes of one world. Images are painted at side·factor pixels, then factor × factor blocks averaged."""

    name: str  # also the random stream: two worlds of different names share no image
    classes: int
    train_per_class: int
    val_per_class: int
    test: int  # unlabelled images
    side: int  # pixels of the written images
    factor: int = 1
    seed: int = 0
    quality: int = 85  # of the JPEGs
    grayscale: float = 0.02  # share of the images stored as one-channel JPEGs
    detail: int = 32  # side of the small image: texture periods are 2 to 4.5 of its pixels

    def count(self, split: str) -> int:
        """Images of train, val or test."""
        return {
            "train": self.classes * self.train_per_class,
            "val": self.classes * self.val_per_class,
            "test": self.test,
        }[split]


def labels_of(world: World, split: str) -> np.ndarray:
    """i64 [count]: the class of every image. Train is ordered by class; val and test are shuffled, as in Tiny
    ImageNet. (The tree does not tell those of test.)"""
    count = world.count(split)
    if split == "train":
        return np.arange(count) // max(world.train_per_class, 1)
    shuffle = Draws(world.seed, world.name + "/order", split, np.zeros(count), np.arange(count)).uniform()
    return np.argsort(shuffle, kind="stable") % world.classes


def _sharp(world: World, split: str, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = labels_of(world, split)[indices]
    scene = draw_scenes(world.seed, world.name, split, labels, indices, world.classes, world.detail)
    size = world.side * world.factor
    images, boxes = np.empty((len(indices), size, size, 3), np.uint8), np.empty((len(indices), 4), np.int32)
    paint_scenes(*scene, images, boxes)
    return images, labels, boxes


def area_mean(images: np.ndarray, factor: int) -> np.ndarray:
    """u8 [n, S·f, S·f, 3] -> u8 [n, S, S, 3]: the rounded mean of each f × f block."""
    if factor == 1:
        return images
    n, size = images.shape[:2]
    blocks = images.reshape(n, size // factor, factor, size // factor, factor, 3)
    total = blocks.sum(axis=2, dtype=np.uint32).sum(axis=3, dtype=np.uint32)
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def render_images(world: World, split: str, indices) -> tuple[np.ndarray, np.ndarray]:
    """Any images of a split, as in the tree but before grayscale and JPEG: u8 [n, side, side, 3], labels i64 [n]."""
    images, labels, _ = _sharp(world, split, np.asarray(indices, np.int64))
    return area_mean(images, world.factor), labels


def is_grayscale(world: World, split: str, indices) -> np.ndarray:
    """bool [n]: which of these images the tree stores as one-channel JPEGs."""
    indices = np.asarray(indices, np.int64)
    draws = Draws(world.seed, world.name + "/gray", split, np.zeros(len(indices)), indices)
    return draws.uniform() < world.grayscale


def encode_jpeg(image: np.ndarray, gray: bool, quality: int) -> bytes:
    """u8 [S, S, 3] -> the bytes of the tree's file."""
    picture, out = Image.fromarray(image), io.BytesIO()
    (picture.convert("L") if gray else picture).save(out, "JPEG", quality=quality)
    return out.getvalue()


def render_jpegs(world: World, split: str, indices) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Any images of a split as the tree's JPEG bytes, their labels i64 [n] and boxes i32 [n, 4] (x0 y0 x1 y1,
    pixels of the written image, inclusive, around every copy of the class's shape)."""
    indices = np.asarray(indices, np.int64)
    images, labels, boxes = _sharp(world, split, indices)
    small, gray = area_mean(images, world.factor), is_grayscale(world, split, indices)
    files = [encode_jpeg(image, bool(g), world.quality) for image, g in zip(small, gray, strict=True)]
    return files, labels, boxes // world.factor


def file_names(world: World, split: str) -> list[str]:
    """Paths in the tree, by index."""
    ids = wnids(world.classes)
    if split == "train":
        return [f"train/{w}/images/{w}_{k}.JPEG" for w in ids for k in range(world.train_per_class)]
    return [f"{split}/images/{split}_{i}.JPEG" for i in range(world.count(split))]


def _write_split(tree: Path, world: World, split: str) -> Iterator[int]:
    """Yields the number of images written since the last time."""
    names, ids, lines = file_names(world, split), wnids(world.classes), {}
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)

    def chunk(start: int) -> tuple[int, np.ndarray, np.ndarray]:
        indices = np.arange(start, min(start + CHUNK, len(names)))
        files, labels, boxes = render_jpegs(world, split, indices)
        for i, data in zip(indices, files, strict=True):
            (tree / names[i]).write_bytes(data)
        return start, labels, boxes

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start, labels, boxes in pool.map(chunk, range(0, len(names), CHUNK)):
            for i, (label, box) in enumerate(zip(labels, boxes, strict=True), start):
                base, where = names[i].rsplit("/", 1)[1], "\t".join(str(v) for v in box)
                wnid = ids[label]
                if split == "train":
                    lines.setdefault(f"train/{wnid}/{wnid}_boxes.txt", []).append(f"{base}\t{where}\n")
                elif split == "val":
                    lines.setdefault("val/val_annotations.txt", []).append(f"{base}\t{wnid}\t{where}\n")
            yield len(labels)
    for name, rows in lines.items():
        (tree / name).write_text("".join(rows))


def render_world(tree: Path, world: World, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the whole tree; `progress(done, total)` after every few images.

    A finished tree of the same world is left as it is; one of another world is replaced. The tree gets its name
    only when whole. DataError where something that this function did not make is in the way.
    """
    tree = Path(tree)
    stamp = {"recipe": RECIPE, **asdict(world)}
    if tree.exists() and any(tree.iterdir()):
        if not (tree / MARKER).is_file():
            raise DataError(f"{tree} holds files but no {MARKER}, so it is no small world; name another folder")
        if json.loads((tree / MARKER).read_text()) == stamp:
            return
    partial = tree.with_name(f".{tree.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    ids, table = wnids(world.classes), class_table(world.classes)
    listed = np.argsort(
        Draws(world.seed, world.name + "/wnids", "train", np.zeros(len(ids)), np.arange(len(ids))).uniform(),
        kind="stable",
    )
    (partial / "wnids.txt").write_text("".join(f"{ids[i]}\n" for i in listed))  # unsorted, as the real one
    (partial / "words.txt").write_text("".join(f"{w}\t{c.name}\n" for w, c in zip(ids, table, strict=True)))
    done, total = 0, sum(world.count(split) for split in ("train", "val", "test"))
    for split in ("train", "val", "test"):
        for written in _write_split(partial, world, split):
            done += written
            if progress is not None:
                progress(done, total)
    (partial / MARKER).write_text(json.dumps(stamp, indent=1) + "\n")
    shutil.rmtree(tree, ignore_errors=True)
    os.replace(partial, tree)
