"""What the compiled loops of numba_views ask for besides pixels: a plan's chance, tables of taps, working memory."""

import math
import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from fastres.views import numba_copies, numba_kernels, tables
from fastres.views.boxes import crop_without_a_fit
from fastres.views.draw import WORD
from fastres.views.geometry import Geometry
from fastres.views.mixing import STEPS, cuts_below, quantiles
from fastres.views.plan import TrainPlan

_local = threading.local()  # every thread keeps its own memory


class Chance(NamedTuple):
    """The arguments of numba_chance's functions after the ids; None where a plan has none of it."""

    every: tuple
    boxes: tuple | None
    erased: tuple | None
    mixtures: tuple | None


def chance_of(plan: TrainPlan) -> Chance:
    """Of a plan; computed anew for each batch, as its epoch changes."""
    s, crop = plan.settings, plan.geometry.crop
    words = plan.seed % WORD, plan.seed // WORD % WORD, plan.epoch, plan.stage, plan.geometry.room + 1
    keys = np.array([*words, int(s.flip * WORD)], np.uint64)
    widths = np.array([s.brightness, s.contrast, s.saturation, s.lighting])
    boxes = erased = mixtures = None
    if s.crop == "resized":
        middle = np.array(crop_without_a_fit(s.ratio))
        boxes = keys, _law(s.scale, s.ratio), middle, plan.geometry.side
    if s.erasing:
        erased = keys, np.uint64(int(s.erasing * WORD)), _law(s.erasing_scale, s.erasing_ratio), crop
    if s.mixes:
        below = np.array([int(s.mixing * WORD), cuts_below(s)], np.uint64)
        mixtures = keys, below, _quantiles(s.mixup, s.cutmix), crop
    return Chance((keys, widths), boxes, erased, mixtures)


def _law(scale: tuple[float, ...], ratio: tuple[float, ...]) -> np.ndarray:
    return np.array([*scale, *map(math.log, ratio)])


@lru_cache(maxsize=16)
def _quantiles(*alphas: float) -> np.ndarray:
    return np.stack([quantiles(alpha) if alpha else np.ones(STEPS + 1) for alpha in alphas])


@lru_cache(maxsize=16)
def fixed_tables(geometry: Geometry, convention: str) -> tuple:
    """numba_kernels.train_range's tables where all samples have the same, of the enlarged image both ways."""
    first, weight = tables.band(geometry.side, geometry.resized, convention)
    return np.stack([first, first])[None], np.stack([weight, weight])[None], np.full((1, 2), weight.shape[1])


def most_taps(geometry: Geometry) -> int:
    """Taps a row that the largest box of a resized crop needs, the whole image: 4 unless that is shrunk."""
    return max(4, math.ceil(4 * geometry.side / geometry.crop))


@lru_cache(maxsize=16)
def test_tables(geometry: Geometry, convention: str, test_views: tuple) -> tuple:
    """What numba_copies.copy_test_range and numba_kernels.test_range ask for, and the widest group. Views that share a
    horizontal pass are a group.

    copies  i64 [n, 4]  of views that are copied: number, mirrored, top, left
    groups  i64 [G, 4]  table, mirrored, first enlarged column, number of columns
    views   i64 [V, 4]  of resampled views: group, number, top, left within the group's columns
    tables  firsts i64 [2, R], weights f32 [2, R, T]: of the enlarged image, and of the whole image at crop size
    """
    side, size, crop = geometry.side, geometry.resized, geometry.crop
    offsets = [(0, 0) if view.whole else view.offset(geometry) for view in test_views]
    copies, members = [], {}
    for number, (view, (top, left)) in enumerate(zip(test_views, offsets)):
        if size == side and not view.whole:
            copies.append((number, view.mirrored, top, left))
        else:
            members.setdefault((view.whole, view.mirrored), []).append((number, top, left))
    groups, views = [], []
    for group, ((whole, mirrored), of_group) in enumerate(members.items()):
        low = min(left for *_, left in of_group)
        width = max(left for *_, left in of_group) + crop - low
        groups.append((whole, mirrored, low, width))
        for number, top, left in of_group:
            views.append((group, number, top, low + width - left - crop if mirrored else left - low))
    enlarged, whole = tables.band(side, size, convention), tables.band(side, crop, convention)
    taps = max(4, enlarged[1].shape[1], whole[1].shape[1])
    # one array for both: where nothing is enlarged or made smaller, only the whole image is resampled
    enlarged = tables.band(side, size, convention, taps) if size != side else whole
    firsts, weights = np.zeros((2, size), np.int64), np.zeros((2, size, taps), np.float32)
    for i, (first, weight) in enumerate((enlarged, tables.band(side, crop, convention, taps))):
        firsts[i, : len(first)], weights[i, : len(first), : weight.shape[1]] = first, weight
    widest = max((width for *_, width in groups), default=crop)
    listed = (np.array(rows, np.int64).reshape(-1, 4) for rows in (copies, groups, views))
    return *listed, (firsts, weights), max(widest, crop)


class Memory(NamedTuple):
    """A thread's working memory: what the compiled functions call scratch.

    resample  lifted f32 [3, S], coloured f32 [S, 3S], columns f32 [W, 3S], partial f32, turned f32
              [2, S, channels * W], lines f32 [3, 1, channels * H]
    """

    decide: tuple
    resample: tuple
    copy: tuple
    pair: np.ndarray
    sides: np.ndarray


def memory(side: int, crop: int, width: int, channels: int) -> Memory:
    """This thread's, made once per geometry."""
    kept, key = _local.__dict__, (side, crop, width, channels)
    if key not in kept:
        decide = np.empty(3 * side, np.float32), np.empty(3), np.empty((3, 4)), np.empty(side)
        shares = np.empty(side, np.float32), np.empty(side, np.float32), np.empty(side)
        lines = max(3 * side, channels * width)
        shapes = (3, side), (side, 3 * side), (numba_kernels.TURNED_COLUMNS, 3 * side), (lines,)
        shapes += (2, side, channels * width), (3, 1, channels * crop)
        copy = (10 * numba_copies.APART,), (numba_copies.LIFTED_ROWS, numba_copies.APART)
        resample, copy = (tuple(_zeros(shape) for shape in group) for group in (shapes, copy))
        kept[key] = Memory((*decide, *shares), resample, copy, _zeros((2, crop, channels * crop)), np.empty(2))
    return kept[key]


def _zeros(shape: tuple) -> np.ndarray:
    return torch.zeros(shape).numpy()  # aligned to 64 bytes


class Decisions(NamedTuple):
    """What is decided on a range of n samples, by the names of numba_chance's and numba_colour's arguments."""

    places: np.ndarray
    reals: np.ndarray
    affines: np.ndarray
    boxes: np.ndarray
    erased: np.ndarray
    mixtures: tuple
    tables: tuple


def decisions(count: int, crop: int, taps: int) -> Decisions:
    """This thread's room for those on `count` samples, which the next range writes over. taps: 0 for fixed crops."""
    kept, key = _local.__dict__, ("decisions", crop, taps)
    if key not in kept or len(kept[key].places) < count:
        boxed, pairs = count if taps else 0, count // 2
        kept[key] = Decisions(
            np.empty((count, 4), np.int64), np.empty((count, 6)), np.empty((count, 3, 4), np.float32),
            np.empty((boxed, 4)), np.empty((count, 4), np.int64),
            (np.empty(pairs, np.int64), np.empty(pairs), np.empty((pairs, 4), np.int64)),
            (np.empty((boxed, 2, crop), np.int64), np.empty((boxed, 2, crop, taps), np.float32),
             np.empty((boxed, 2), np.int64)),
        )  # fmt: skip
    places, reals, affines, boxes, erased, (kinds, own, patches), (firsts, weights, counts) = kept[key]
    pairs = count // 2
    return Decisions(
        places[:count], reals[:count], affines[:count], boxes[:count], erased[:count],
        (kinds[:pairs], own[:pairs], patches[:pairs]), (firsts[:count], weights[:count], counts[:count]),
    )  # fmt: skip
