"""Compiled chance of numba_views: draw.py, boxes.py and mixing.py for a range of samples.

By one thread, without allocation, with the interpreter lock released, as in all files of compiled functions. No
compiled function of one of them is called from another: Numba's disk cache notices a change of the file an entry is
in, not of files it calls into. Constants arrive as arguments.
"""

import math

import numba
import numpy as np

TRIES = 10  # of a box that fits, as in boxes.py
MIXUP, CUTMIX = 1, 2  # as in mixing.py
_MASK = np.uint64(0xFFFFFFFF)
_32, _24, _8 = np.uint64(32), 2.0**-24, np.uint64(8)
# fused multiply-adds only: they round less, not more. No reordering, so every processor sums in the same order
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(function):
    """Compile, with the machine code kept on disk where there is a place for it (NUMBA_CACHE_DIR, or beside us)."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # "no locator available": neither the package's folder nor the user's cache can be written
        return numba.njit(**_OPTIONS)(function)


@compiled
def _philox(c0, c3, keys):
    """Philox 4x32-10 as in draw.py; keys u64: seed low, seed high, epoch, stage."""
    c1, c2, k0, k1 = keys[2], keys[3], keys[0], keys[1]
    for _ in range(10):
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (product1 >> _32) ^ c1 ^ k0, product1 & _MASK, (product0 >> _32) ^ c3 ^ k1, product0 & _MASK
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _MASK, (k1 + np.uint64(0xBB67AE85)) & _MASK
    return c0, c1, c2, c3


@compiled
def _unit(word):
    return np.float64(word >> _8) * _24


@compiled
def _draw(sample, keys, widths, place, real):
    """The chance of one sample: place i64 [4] = top, left, flip, order; real f64 [6] = factors, lighting."""
    sample = np.uint64(sample) & _MASK
    top, left, flip, order = _philox(sample, np.uint64(0), keys)
    place[0], place[1] = (top * keys[4]) >> _32, (left * keys[4]) >> _32
    place[2], place[3] = flip < keys[5], (order * np.uint64(6)) >> _32
    w0, w1, w2, w3 = _philox(sample, np.uint64(1), keys)
    real[0] = 1.0 + widths[0] * (2.0 * _unit(w0) - 1.0)
    real[1] = 1.0 + widths[1] * (2.0 * _unit(w1) - 1.0)
    real[2] = 1.0 + widths[2] * (2.0 * _unit(w2) - 1.0)
    w0, w1, w2, w3 = _philox(sample, np.uint64(2), keys)
    radius0, radius1 = math.sqrt(-2.0 * math.log(1.0 - _unit(w0))), math.sqrt(-2.0 * math.log(1.0 - _unit(w2)))
    angle0, angle1 = 2.0 * math.pi * _unit(w1), 2.0 * math.pi * _unit(w3)
    real[3] = widths[3] * (radius0 * math.cos(angle0))
    real[4] = widths[3] * (radius0 * math.sin(angle0))
    real[5] = widths[3] * (radius1 * math.cos(angle1))


@compiled
def draw_range(ids, keys, widths, places, reals):
    """draw.draw: places i64 [B, 4] = top, left, flip, order; reals f64 [B, 6] = factors, lighting receive it.

    keys    u64 [6]  seed low and high words, epoch, stage, room + 1, flip below this word
    widths  f64 [4]  half-widths of brightness, contrast and saturation, standard deviation of lighting
    """
    for b in range(ids.shape[0]):
        _draw(ids[b], keys, widths, places[b], reals[b])


@compiled
def _shape(sample, keys, block, law, crop, sides):
    """Height and width of the first try that fits, f64 [2] of shares; False where none does. crop: pixels a side of
    the view that must be larger both ways; 0: one that the whole may fill. law f64 [4]: scale, logarithms of ratio."""
    for attempt in range(TRIES):
        w0, w1, w2, w3 = _philox(sample, np.uint64(block + attempt // 2), keys)
        area, shape = (w2, w3) if attempt % 2 else (w0, w1)
        area_share = law[0] + (law[1] - law[0]) * _unit(area)
        ratio = math.exp(law[2] + (law[3] - law[2]) * _unit(shape))
        sides[0], sides[1] = math.sqrt(area_share / ratio), math.sqrt(area_share * ratio)
        longest = max(sides[0], sides[1])
        if math.floor(longest * crop + 0.5) < crop if crop else longest <= 1.0:
            return True
    return False


@compiled
def draw_boxes(ids, keys, law, middle, side, sides, boxes):
    """boxes.crop_boxes, in pixels of images of `side`: boxes f64 [B, 4] receive them. middle f64 [2]: height and width
    where nothing fits; sides f64 [2]: scratch."""
    for b in range(ids.shape[0]):
        sample = np.uint64(ids[b]) & _MASK
        down = across = 0.5
        if _shape(sample, keys, 8, law, 0, sides):
            top, left, _, _ = _philox(sample, np.uint64(7), keys)
            down, across = _unit(top), _unit(left)
        else:
            sides[0], sides[1] = middle[0], middle[1]
        boxes[b, 0], boxes[b, 1] = down * (1.0 - sides[0]) * side, across * (1.0 - sides[1]) * side
        boxes[b, 2], boxes[b, 3] = sides[0] * side, sides[1] * side


@compiled
def draw_erased(ids, keys, below, law, crop, sides, erased):
    """boxes.erased_boxes: erased i64 [B, 4] receive them. below: chance says yes where a word is."""
    for b in range(ids.shape[0]):
        sample = np.uint64(ids[b]) & _MASK
        gate, top, left, _ = _philox(sample, np.uint64(6), keys)
        erased[b] = 0
        if gate < below and _shape(sample, keys, 16, law, crop, sides):
            height, width = np.uint64(math.floor(sides[0] * crop + 0.5)), np.uint64(math.floor(sides[1] * crop + 0.5))
            erased[b, 0] = (top * (np.uint64(crop + 1) - height)) >> _32
            erased[b, 1] = (left * (np.uint64(crop + 1) - width)) >> _32
            erased[b, 2], erased[b, 3] = erased[b, 0] + np.int64(height), erased[b, 1] + np.int64(width)


@compiled
def draw_mixtures(ids, keys, below, tables, crop, kinds, own, patches):
    """mixing.mixtures: kinds i64 [P], own f64 [P] and patches i64 [P, 4] receive them.

    below   u64 [2]             a pair is mixed where its first word is below the first, and cut below the second
    tables  f64 [2, STEPS + 1]  mixing.quantiles for MixUp and for CutMix
    """
    for p in range(kinds.shape[0]):
        sample = np.uint64(ids[2 * p]) & _MASK
        gate, which, weight, _ = _philox(sample, np.uint64(4), keys)
        kinds[p], own[p], patches[p] = 0, 1.0, 0
        if gate >= below[0]:
            continue
        cuts = which < below[1]
        table, at, part = tables[1 if cuts else 0], weight >> np.uint64(20), (weight >> _8) & np.uint64(0xFFF)
        share = table[at] + (np.float64(part) / 4096.0) * (table[at + np.uint64(1)] - table[at])
        kinds[p], own[p] = (CUTMIX if cuts else MIXUP), share
        if cuts:
            half = np.int64(0.5 * math.sqrt(1.0 - share) * crop)
            y, x, _, _ = _philox(sample, np.uint64(5), keys)
            for i, word in enumerate((y, x)):
                centre = np.int64((word * np.uint64(crop)) >> _32)
                patches[p, i], patches[p, i + 2] = max(centre - half, 0), min(centre + half, crop)
            area = (patches[p, 2] - patches[p, 0]) * (patches[p, 3] - patches[p, 1])
            own[p] = 1.0 - area / (crop * crop)
