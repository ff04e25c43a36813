"""The small world: a procedural, deterministic stand-in for Tiny ImageNet, made without a network.

Four parts. The *source* world has 40 classes of sharp 128 px images, for pretraining. The *target* world has the
first 20 of those classes, other images, painted at 128 px and area-averaged to 32 px, as Tiny ImageNet is ImageNet
made small; the *study* world has all 40, half the images each, and 1,200 to validate on. *tiny* has Tiny
ImageNet's own sizes, for benchmarks. All are written as a Tiny-ImageNet tree and packed by the same code as the real
one. It stands in for the pipeline and its speed: its errors neither confirm nor refute the paper's.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from preprocess.small_world.classes import WorldClass, class_table, wnids
from preprocess.small_world.tree import (
    World,
    area_mean,
    encode_jpeg,
    file_names,
    is_grayscale,
    labels_of,
    render_images,
    render_jpegs,
    render_world,
)

SOURCE = World(name="source", classes=40, train_per_class=400, val_per_class=50, test=0, side=128)
TARGET = World(name="target", classes=20, train_per_class=200, val_per_class=50, test=500, side=32, factor=4)
STUDY = World(name="study", classes=40, train_per_class=100, val_per_class=30, test=0, side=32, factor=4)
TINY = World(name="tiny", classes=200, train_per_class=500, val_per_class=50, test=10_000, side=64, factor=4, detail=64)
PARTS = {world.name: world for world in (TARGET, STUDY, SOURCE, TINY)}

__all__ = [
    "PARTS",
    "SOURCE",
    "STUDY",
    "TARGET",
    "TINY",
    "World",
    "WorldClass",
    "area_mean",
    "class_table",
    "encode_jpeg",
    "file_names",
    "is_grayscale",
    "labels_of",
    "render_images",
    "render_jpegs",
    "render_part",
    "render_world",
    "wnids",
]


def render_part(part: str, tree: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the tree of a part, a key of PARTS: 5,500 images of target, 5,200 of study, 18,000 of source, 120,000 of
    tiny."""
    render_world(tree, replace(PARTS[part], seed=seed), progress)
