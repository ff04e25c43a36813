"""Compiled chance and colour of numba_views: what to do with each sample, before any pixel is written.

Draws, mean colour and colour matrix of a range of samples, by one thread, without allocation, with the interpreter
lock released. No compiled function here is called from another file, nor the other way round: Numba's disk cache
notices a change of the file an entry is in, not of files it calls into. Constants arrive as arguments.
"""

import math

import numba
import numpy as np

CONTRAST = 1  # jitter kinds in colour.py's order: brightness, contrast, saturation
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
    """draw.draw in compiled form, for tests and for a look at an epoch: places i64 [B, 4], reals f64 [B, 6] receive it.

    keys    u64 [6]  seed low and high words, epoch, stage, room + 1, flip below this word
    widths  f64 [4]  half-widths of brightness, contrast and saturation, standard deviation of lighting
    """
    for b in range(ids.shape[0]):
        _draw(ids[b], keys, widths, places[b], reals[b])


@compiled
def _compose(mean, order, real, constants, affine):
    """colour.compose for one image. constants f64 [6, 3]: mean, std, gray, lighting rows; affine f64 [3, 4] = C | b."""
    affine[:] = 0
    for c in range(3):
        affine[c, c] = 1 / 255.0
    for position in range(3):
        kind = order[position]
        factor = real[kind]
        for k in (3, 0, 1, 2):  # the offset first: contrast adds to it for each of the other columns
            gray = constants[2, 0] * affine[0, k] + constants[2, 1] * affine[1, k] + constants[2, 2] * affine[2, k]
            for c in range(3):
                affine[c, k] *= factor
                if kind > CONTRAST:  # saturation blends each channel with gray
                    affine[c, k] += (1 - factor) * gray
                elif kind == CONTRAST:  # blends with the gray of the view's mean colour, a constant
                    affine[c, 3] += (1 - factor) * gray * (mean[k] if k < 3 else 1.0)
    for c in range(3):
        for k in range(3):
            affine[c, 3] += constants[3 + k, c] * real[3 + k]
        affine[c, 3] -= constants[0, c]
        for k in range(4):
            affine[c, k] /= constants[1, c]


@compiled
def _mean_colour(image, row_share, column_share, sums, mean):
    """Mean colour of the view, f64 [3]: each source pixel weighted by its share of it. sums: f32 [3S] of scratch."""
    side = image.shape[0]
    flat = image.reshape(side, 3 * side)
    sums[:] = 0
    for y in range(side):
        share, line = row_share[y], flat[y]
        for k in range(3 * side):
            sums[k] += share * np.float32(line[k])
    mean[:] = 0
    for x in range(side):
        for c in range(3):
            mean[c] += np.float64(column_share[x]) * sums[3 * x + c]


@compiled
def decide_range(images, rows, ids, chance, shares, constants, orders, scratch, places, affines):
    """Draw and colour a range of samples. Returns how many of `rows` are not among the images.

    chance   keys and widths, see draw_range
    shares   f32 [room + 1, S]  by crop offset, each source row's share of the crop's mean
    scratch  sums f32 [3S], mean f64 [3], real f64 [6], affine f64 [3, 4]
    places   i64 [n, 4]     receives top, left, flip, order
    affines  f32 [n, 3, 4]  receives C | b: x = C rgb + b, normalised, for rgb in 0 .. 255
    """
    keys, widths = chance
    sums, mean, real, affine = scratch
    bad = 0
    for b in range(rows.shape[0]):
        if rows[b] < 0 or rows[b] >= images.shape[0]:
            bad += 1
            continue
        place = places[b]
        _draw(ids[b], keys, widths, place, real)
        _mean_colour(images[rows[b]], shares[place[0]], shares[place[1]], sums, mean)
        _compose(mean, orders[place[3]], real, constants, affine)
        affines[b] = affine
    return bad
