"""The small world: the same pixels every time, in any order, and a tree as Tiny ImageNet's."""

import io
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from fastres.machine.errors import DataError
from preprocess.small_world import SOURCE, STUDY, TARGET, TINY, World, class_table, file_names, render_images, wnids
from preprocess.small_world.classes import LAYOUTS, PALETTES, SHAPES, TEXTURES, TWINS
from preprocess.small_world.scene import PALETTE_HUES, Draws
from preprocess.small_world.tree import MARKER, area_mean, is_grayscale, labels_of, render_jpegs, render_world

SMALL = World(name="test", classes=6, train_per_class=9, val_per_class=4, test=11, side=16, factor=4, grayscale=0.2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = tmp_path_factory.mktemp("worlds") / "small"
    render_world(path, SMALL)
    return path


def boxes_of(tree, split):
    """{file name: (wnid, box)} as a reader of Tiny ImageNet sees it."""
    if split == "val":
        lines = [line.split("\t") for line in (tree / "val/val_annotations.txt").read_text().splitlines()]
        return {name: (wnid, [int(v) for v in box]) for name, wnid, *box in lines}
    lines = [
        (p.parent.name, line.split("\t"))
        for p in tree.glob("train/*/*_boxes.txt")
        for line in p.read_text().splitlines()
    ]
    return {name: (wnid, [int(v) for v in box]) for wnid, (name, *box) in lines}


# ------------------------------------------------------------------------------------------------ classes


def test_every_class_is_another_and_a_longer_table_starts_with_the_shorter():
    table = class_table(200)
    assert len(set(table)) == 200 and len({c.name for c in table}) == 200
    assert class_table(40) == table[:40] and class_table(1) == table[:1]
    assert wnids(200)[:40] == wnids(40) and wnids(200) == sorted(set(wnids(200)))
    with pytest.raises(ValueError, match="classes, not 0"):
        class_table(0)


def test_only_the_twins_differ_in_texture_alone():
    table = class_table(200)
    near = {
        (i, j)
        for (i, a), (j, b) in combinations(enumerate(table), 2)
        if (a.shape, a.palette, a.layout) == (b.shape, b.palette, b.layout)
    }
    assert near == {(source, twin) for twin, (source, *_) in TWINS.items()} and len(near) == 3
    assert all(table[i].fine and table[j].fine for i, j in near) and sum(c.fine for c in table) == 6


def test_no_attribute_is_missing_or_dominant():
    table = class_table(200)
    for names, values in (
        (SHAPES, [c.shape for c in table]),
        (TEXTURES, [c.texture for c in table]),
        (PALETTES, [c.palette for c in table]),
        (LAYOUTS, [c.layout for c in table]),
    ):
        counts = Counter(values)
        assert set(counts) == set(range(len(names))) and max(counts.values()) < 2 * min(counts.values())
    assert len(PALETTE_HUES) == len(PALETTES)


def test_a_name_tells_the_composition():
    for c in class_table(40):
        for word in (SHAPES[c.shape], TEXTURES[c.texture], PALETTES[c.palette]):
            assert word in c.name.split()


# ------------------------------------------------------------------------------------------------ pixels


def test_a_subset_has_the_same_pixels_as_the_whole():
    whole, labels = render_images(SMALL, "val", range(24))
    some, some_labels = render_images(SMALL, "val", [17, 3, 3])
    assert whole.shape == (24, 16, 16, 3) and whole.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(some, whole[[17, 3, 3]]) and np.array_equal(some_labels, labels[[17, 3, 3]])
    assert not np.array_equal(some[0], some[1])


def test_seed_name_split_and_index_each_change_the_image():
    base = render_images(SMALL, "train", [0])[0]
    others = [
        render_images(replace(SMALL, seed=1), "train", [0])[0],
        render_images(replace(SMALL, name="else"), "train", [0])[0],
        render_images(SMALL, "test", [0])[0],
        render_images(SMALL, "train", [1])[0],
    ]
    for other in others:
        assert np.abs(base.astype(int) - other).mean() > 4


@pytest.mark.parametrize("world", [TARGET, STUDY], ids=lambda world: world.name)
def test_source_shares_classes_and_no_image(world):
    assert wnids(world.classes) == wnids(SOURCE.classes)[: world.classes]
    assert class_table(world.classes) == class_table(SOURCE.classes)[: world.classes]
    sharp = replace(world, side=128, factor=1)
    ours, theirs = render_images(sharp, "train", range(0, 60, 5))[0], render_images(SOURCE, "train", range(0, 60, 5))[0]
    for a in ours:
        assert np.abs(theirs.astype(int) - a).mean((1, 2, 3)).min() > 4


def test_small_images_are_area_means_of_sharp_ones():
    sharp, _ = render_images(replace(SMALL, side=64, factor=1), "train", [4, 20])
    small, _ = render_images(SMALL, "train", [4, 20])
    mean = sharp.astype(float).reshape(2, 16, 4, 16, 4, 3).mean((2, 4))
    assert np.abs(small - mean).max() <= 0.5
    assert area_mean(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1).repeat(3, 3), 2).tolist() == [[[[2, 2, 2]]]]


def test_images_are_varied_and_not_clipped_away():
    images, _ = render_images(SOURCE, "train", range(0, 16_000, 500))
    means, spread = images.mean((1, 2, 3)), images.std((1, 2, 3))
    assert means.std() > 12 and means.min() > 15 and means.max() < 235
    assert spread.min() > 8 and ((images == 0) | (images == 255)).mean() < 0.1


def test_draws_are_uniform_and_do_not_depend_on_company():
    draws = Draws(0, "test", "train", np.zeros(5000), np.arange(5000))
    first, second = draws.uniform(), draws.uniform(-1, 1, per_image=3)
    assert abs(first.mean() - 0.5) < 0.02 and abs(first.std() - 12**-0.5) < 0.01
    assert second.shape == (5000, 3) and second.min() >= -1 and second.max() < 1
    assert np.abs(np.corrcoef(np.column_stack([first, second]).T) - np.eye(4)).max() < 0.06
    alone = Draws(0, "test", "train", np.zeros(1), np.array([4321]))
    assert alone.uniform()[0] == first[4321] and np.array_equal(alone.uniform(-1, 1, 3)[0], second[4321])


# ------------------------------------------------------------------------------------------------ the tree


def test_counts_are_those_of_the_demo_and_of_tiny_imagenet():
    assert [SOURCE.count(s) for s in ("train", "val")] == [16_000, 2_000]
    assert [TARGET.count(s) for s in ("train", "val", "test")] == [4_000, 1_000, 500]
    assert [STUDY.count(s) for s in ("train", "val", "test")] == [4_000, 1_200, 0]
    assert [TINY.count(s) for s in ("train", "val", "test")] == [100_000, 10_000, 10_000]
    for world in (SMALL, TARGET):
        for split in ("train", "val"):
            per = {"train": world.train_per_class, "val": world.val_per_class}[split]
            assert Counter(labels_of(world, split)) == dict.fromkeys(range(world.classes), per)
        assert list(labels_of(world, "val")) != sorted(labels_of(world, "val"))


def test_the_tree_has_every_file_and_nothing_else(tree):
    expected = {name for split in ("train", "val", "test") for name in file_names(SMALL, split)}
    expected |= {"wnids.txt", "words.txt", "val/val_annotations.txt", MARKER}
    expected |= {f"train/{w}/{w}_boxes.txt" for w in wnids(6)}
    assert {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()} == expected
    assert sorted((tree / "wnids.txt").read_text().split()) == wnids(6)
    words = dict(line.split("\t") for line in (tree / "words.txt").read_text().splitlines())
    assert words == {w: c.name for w, c in zip(wnids(6), class_table(6), strict=True)}
    assert not list(tree.parent.glob(".*.partial"))


def test_annotations_name_each_image_with_a_box_inside_it(tree):
    for split in ("train", "val"):
        boxes, labels = boxes_of(tree, split), labels_of(SMALL, split)
        assert len(boxes) == len(labels) == SMALL.count(split)
        for name, label in zip(file_names(SMALL, split), labels, strict=True):
            wnid, (x0, y0, x1, y1) = boxes[name.rsplit("/", 1)[1]]
            assert wnid == wnids(6)[label] and 0 <= x0 < x1 < SMALL.side and 0 <= y0 < y1 < SMALL.side


def test_a_box_holds_the_shape():
    """Where two images differ only in the class's own colours, they differ inside the box and nowhere else."""
    from preprocess.small_world import scene
    from preprocess.small_world.render import paint_scenes

    labels = labels_of(SOURCE, "val")[:12]
    objects, settings, seeds = scene.draw_scenes(0, "source", "val", labels, np.arange(12), 40, 32)
    pictures, boxes = np.empty((2, 12, 128, 128, 3), np.uint8), np.empty((12, 4), np.int32)
    paint_scenes(objects, settings, seeds, pictures[0], boxes)
    mains = objects[:, :, scene.MAIN] > 0
    objects[mains, scene.RED_A : scene.RED_B + 3] = 0
    paint_scenes(objects, settings, seeds, pictures[1], boxes)
    for a, b, (x0, y0, x1, y1) in zip(*pictures, boxes, strict=True):
        rows, columns = np.nonzero((a != b).any(-1))
        assert rows.min() >= y0 - 2 and rows.max() <= y1 + 2 and columns.min() >= x0 - 2 and columns.max() <= x1 + 2


def test_files_are_jpegs_some_of_them_grayscale(tree):
    grays = 0
    for split in ("train", "val", "test"):
        files, _, _ = render_jpegs(SMALL, split, range(SMALL.count(split)))
        expected = is_grayscale(SMALL, split, range(SMALL.count(split)))
        for name, data, gray in zip(file_names(SMALL, split), files, expected, strict=True):
            assert (tree / name).read_bytes() == data
            with Image.open(io.BytesIO(data)) as image:
                assert image.format == "JPEG" and image.size == (16, 16) and image.mode == ("L" if gray else "RGB")
        grays += expected.sum()
    assert 0.08 < grays / 89 < 0.35
    assert 0.01 < is_grayscale(TARGET, "train", range(4000)).mean() < 0.03


def test_a_finished_tree_is_kept_another_world_replaces_it_and_strangers_are_refused(tmp_path):
    tiny = replace(SMALL, classes=2, train_per_class=2, val_per_class=1, test=1, side=8)
    path, steps = tmp_path / "world", []
    render_world(path, tiny, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (7, 7)
    (path / "extra").touch()
    render_world(path, tiny)
    assert (path / "extra").exists()
    render_world(path, replace(tiny, seed=1))
    assert not (path / "extra").exists()
    (path / MARKER).unlink()
    with pytest.raises(DataError, match="no small world"):
        render_world(path, tiny)
    assert (path / "wnids.txt").exists()
