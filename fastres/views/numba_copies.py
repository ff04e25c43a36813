"""Compiled loops behind numba_views for what is not resampled: a coloured crop, one pass over its bytes.

Compiled code here calls nothing compiled elsewhere, for the reason numba_chance.py gives.
"""

import numba
import numpy as np
from numba.extending import overload

from fastres.views.numba_chance import compiled

TILE = 768  # flat columns that _copy_view makes of a row before it goes on to the next; whole pixels of 3 or 4 channels
APART = TILE + 16  # constant, so that LLVM need not check ten arrays for overlap; no multiple of a page: cache sets
LIFTED_ROWS = 4  # so that a vector is read a while after the ones it overlaps were written
MIXUP, CUTMIX = 1, 2  # as in mixing.py
_U = np.uint64  # of an unsigned index Numba does not ask whether it counts from the end, which costs vectors


def _store(out, at, value):
    """out[at] = value, float32, or bfloat16 as uint16 rounded to nearest even (no input is infinite or NaN)."""
    raise NotImplementedError


@overload(_store)
def _store_for(out, at, value):
    if out.dtype == numba.uint16:

        def store(out, at, value):
            bits = np.float32(value).view(np.uint32)
            tie = (bits >> np.uint32(16)) & np.uint32(1)
            out[at] = np.uint16((bits + np.uint32(0x7FFF) + tie) >> np.uint32(16))
    else:

        def store(out, at, value):
            out[at] = value

    return store


@compiled
def _lift_row(flat, row, start, mirrored, channels, width, at, raw):
    """`width` flat columns of a row of bytes into row `at` of raw, from its third number on. Mirrored: backwards, so
    that pixels come from `start` down, with blue in front; a fourth channel is left out."""
    if channels == 3 and mirrored:
        for k in range(width):
            raw[at, k + _U(2)] = np.float32(flat[row, start - k])
    elif channels == 3:
        for k in range(width):
            raw[at, k + _U(2)] = np.float32(flat[row, start + k])
    else:
        for x in range(width // _U(4)):
            for c in range(_U(3)):
                k = _U(3) * x + c
                raw[at, _U(4) * x + c + _U(2)] = np.float32(flat[row, start - k if mirrored else start + k])


@compiled
def _copy_view(image, affine, top, left, mirrored, channels, scratch, out):
    """No resampling: a coloured crop. out [H, channels * H].

    Red, green and blue of a pixel lie side by side, and shuffling them into vectors takes longer than the sums. So a
    number is the sum of nine products over its neighbours, of which six are with 0 (exactly nothing is added): for
    flat column k, terms[3 s + c] has the coefficient of colour s (green, red, blue) where k is channel c, else 0.
    Every load and store is of whole vectors, of bfloat16 too. No slices: around a branch, Numba counts
    references to every slice with atomic instructions.
    """
    terms, raw = scratch
    crop, count = _U(out.shape[0]), _U(channels)
    flat = image.reshape(image.shape[0], 3 * image.shape[1])
    for x in range(min(crop, _U(TILE) // count)):
        for c in range(_U(3)):
            k = count * x + c
            for s, colour in enumerate((1, 0, 2)):
                terms[(_U(3 * s) + c) * _U(APART) + k] = affine[c, colour]
            terms[_U(9 * APART) + k] = affine[c, 3]
    red, blue = (_U(4), _U(2)) if mirrored else (_U(2), _U(4))  # from column k to its pixel's, in channel 0
    for begin in range(_U(0), count * crop, _U(TILE)):
        width, x = min(_U(TILE), count * crop - begin), begin // count
        start = _U(3) * (_U(left) + crop - x) - _U(1) if mirrored else _U(3) * (_U(left) + x)
        for first in range(_U(0), crop, _U(LIFTED_ROWS)):
            rows = min(_U(LIFTED_ROWS), crop - first)
            for y in range(rows):
                _lift_row(flat, _U(top) + first + y, start, mirrored, channels, width, y, raw)
            for y in range(rows):
                _sum_terms(terms, raw, y, red, blue, width, out, first + y, begin)


@compiled
def _sum_terms(terms, raw, at, red, blue, width, out, row, begin):
    """One row of _copy_view."""
    for k in range(width):
        value = terms[k] * raw[at, k + _U(3)]
        value += terms[k + _U(APART)] * raw[at, k + _U(2)] + terms[k + _U(2 * APART)] * raw[at, k + _U(1)]
        value += terms[k + _U(3 * APART)] * raw[at, k + red]
        value += terms[k + _U(4 * APART)] * raw[at, k + red - _U(1)]
        value += terms[k + _U(5 * APART)] * raw[at, k + red - _U(2)]
        value += terms[k + _U(6 * APART)] * raw[at, k + blue]
        value += terms[k + _U(7 * APART)] * raw[at, k + blue - _U(1)]
        value += terms[k + _U(8 * APART)] * raw[at, k + blue - _U(2)]
        _store(out, (row, begin + k), value + terms[k + _U(9 * APART)])


@compiled
def _erase(view, box, channels):
    """0 where the box i64 [4] (top, left, bottom, right) is in a view [H, channels * W]."""
    for y in range(box[0], box[2]):
        view[y, channels * box[1] : channels * box[3]] = 0


@compiled
def _blend(a, b, own, out_a, out_b):
    """own a + (1 - own) b into out_a and own b + (1 - own) a into out_b: flat views."""
    other = np.float32(1) - own
    for k in range(a.shape[0]):
        _store(out_a, k, own * a[k] + other * b[k])
    for k in range(a.shape[0]):
        _store(out_b, k, own * b[k] + other * a[k])


@compiled
def _exchange(a, b, patch, channels):
    """What lies in the patch (top, left, bottom, right) of each view is the other's from now on."""
    for y in range(patch[0], patch[2]):
        for k in range(_U(channels * patch[1]), _U(channels * patch[3])):
            a[y, k], b[y, k] = b[y, k], a[y, k]


@compiled
def copy_range(images, rows, places, affines, erased, mixtures, scratch, views, out):
    """Training views of a range of samples, coloured by numba_colour.decide; neighbours mixed.

    erased    i64 [n, 4], or [0, 4] where nothing is
    mixtures  kinds i64 [P], own f64 [P], patches i64 [P, 4]; P = 0 where nothing is mixed
    scratch   (terms f32 [10 * APART], zeros at first; raw f32 [LIFTED_ROWS, APART], finite) for one number of channels
    views     f32 [2, H, channels * H], scratch for a pair: it is rounded once, when it is blended
    out       f32 or bfloat16 bits [n, H, channels * H]
    """
    kinds, own, patches = mixtures
    channels = out.shape[2] // out.shape[1]
    for b in range(rows.shape[0]):
        p, place, half = b // 2, places[b], b % 2
        image, top, left, flip = images[rows[b]], place[0], place[1], place[2] != 0
        kind = kinds[p] if p < kinds.shape[0] else 0
        if kind == MIXUP:
            _copy_view(image, affines[b], top, left, flip, channels, scratch, views[half])
            if b < erased.shape[0]:
                _erase(views[half], erased[b], channels)
            if half == 1:
                before, last = out[b - 1].reshape(-1), out[b].reshape(-1)
                _blend(views[0].reshape(-1), views[1].reshape(-1), np.float32(own[p]), before, last)
            continue
        _copy_view(image, affines[b], top, left, flip, channels, scratch, out[b])
        if b < erased.shape[0]:
            _erase(out[b], erased[b], channels)
        if kind == CUTMIX and half == 1:
            _exchange(out[b - 1], out[b], patches[p], channels)


@compiled
def copy_test_range(images, rows, views, count, affine, scratch, out):
    """Fixed views of a range of images, `count` views of each; of these, views i64 [n, 4]: number, mirrored, top, left.
    Returns how many of `rows` are not among the images."""
    channels, bad = out.shape[2] // out.shape[1], 0
    for b in range(rows.shape[0]):
        if rows[b] < 0 or rows[b] >= images.shape[0]:
            bad += 1
            continue
        for v in range(views.shape[0]):
            view = out[b * count + views[v, 0]]
            _copy_view(images[rows[b]], affine, views[v, 2], views[v, 3], views[v, 1] != 0, channels, scratch, view)
    return bad
