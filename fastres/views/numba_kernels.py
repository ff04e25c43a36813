"""Compiled loops behind numba_views: one thread, a range of samples, no allocation, the interpreter lock released.

The way of one image: its columns are lifted out of the bytes and coloured (source pixels: 16 times fewer than output
pixels when upscaling by 4; exact, because resampling weights sum to 1), combined into output columns, turned a few
rows at a time so that they are still in the first-level cache when the vertical pass reads them, and combined into
output rows, rounded and written once. Both passes are the same loop: a weighted sum of a few long rows, which
vectorises on every processor.

Compiled code here calls nothing compiled elsewhere, for the reason numba_chance.py gives.
"""

import numba
import numpy as np
from numba.extending import overload

from fastres.views.numba_chance import compiled

TURNED_COLUMNS = 16


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
def _mix(r, g, b, m0, m1, m2, shift, out):
    for y in range(out.shape[0]):
        out[y] = m0 * r[y] + m1 * g[y] + m2 * b[y] + shift


@compiled
def _colour_columns(image, start, stop, affine, lifted, out):
    """Columns start .. stop - 1 of the image, coloured, into out f32 [S, 3S]: red of all rows, green, then blue."""
    side = image.shape[0]
    r, g, b = lifted[0], lifted[1], lifted[2]
    for x in range(start, stop):
        for y in range(side):
            r[y] = image[y, x, 0]
        for y in range(side):
            g[y] = image[y, x, 1]
        for y in range(side):
            b[y] = image[y, x, 2]
        line = out[x]
        _mix(r, g, b, affine[0, 0], affine[0, 1], affine[0, 2], affine[0, 3], line[:side])
        _mix(r, g, b, affine[1, 0], affine[1, 1], affine[1, 2], affine[1, 3], line[side : 2 * side])
        _mix(r, g, b, affine[2, 0], affine[2, 1], affine[2, 2], affine[2, 3], line[2 * side :])


@compiled
def _combine_four(lines, first, start, weight, out):
    """out = sum over four taps t of weight[t] * lines[first + t, start ..].

    Without a branch: around one, Numba counts references to every slice with atomic instructions, twice the time.
    """
    stop = start + out.shape[0]
    w0, w1, w2, w3 = weight[0], weight[1], weight[2], weight[3]
    a, b = lines[first][start:stop], lines[first + 1][start:stop]
    c, d = lines[first + 2][start:stop], lines[first + 3][start:stop]
    for k in range(out.shape[0]):
        _store(out, k, w0 * a[k] + w1 * b[k] + w2 * c[k] + w3 * d[k])


@compiled
def _combine_many(lines, first, start, weight, partial, out):
    """The same for any number of taps, summed in `partial` f32."""
    partial[: out.shape[0]] = 0
    for t in range(weight.shape[0]):
        w, line = weight[t], lines[first + t]
        for k in range(out.shape[0]):
            partial[k] += w * line[start + k]
    for k in range(out.shape[0]):
        _store(out, k, partial[k])


@compiled
def _combine_range(lines, start, table, at, step, low, high, partial, out):
    """out[x], x in low .. high - 1, by row at + step * x of the table (first, weight)."""
    first, weight = table
    if weight.shape[1] == 4:
        for x in range(low, high):
            i = at + step * x
            _combine_four(lines, first[i], start, weight[i], out[x])
    else:
        for x in range(low, high):
            i = at + step * x
            _combine_many(lines, first[i], start, weight[i], partial, out[x])


@compiled
def _turn(block, count, channels, start, out):
    """Columns block f32 [count, 3S] into out f32 [S, channels * W] from column `start` on; a fourth channel stays."""
    side = out.shape[0]
    for y in range(side):
        line = out[y][channels * start : channels * (start + count)]
        for x in range(count):
            line[channels * x] = block[x, y]
            line[channels * x + 1] = block[x, side + y]
            line[channels * x + 2] = block[x, 2 * side + y]


@compiled
def _across(coloured, table, at, step, width, channels, partial, columns, turned):
    """The horizontal pass: `width` columns from at + step * x of the table, turned into rows. A few at a time, so
    that the strided reads of turning stay in the first-level cache."""
    for x in range(0, width, TURNED_COLUMNS):
        count = min(TURNED_COLUMNS, width - x)
        _combine_range(coloured, 0, table, at + step * x, step, 0, count, partial, columns)
        _turn(columns, count, channels, x, turned)


@compiled
def _copy_view(image, affine, top, left, mirrored, channels, out):
    """No resampling: a coloured crop. out [H, channels * H]."""
    m00, m01, m02, b0 = affine[0, 0], affine[0, 1], affine[0, 2], affine[0, 3]
    m10, m11, m12, b1 = affine[1, 0], affine[1, 1], affine[1, 2], affine[1, 3]
    m20, m21, m22, b2 = affine[2, 0], affine[2, 1], affine[2, 2], affine[2, 3]
    crop = out.shape[0]
    for y in range(crop):
        line, source = out[y], image[top + y][left : left + crop]
        for x in range(crop):
            at = channels * (crop - 1 - x) if mirrored else channels * x
            r, g, b = np.float32(source[x, 0]), np.float32(source[x, 1]), np.float32(source[x, 2])
            _store(line, at, m00 * r + m01 * g + m02 * b + b0)
            _store(line, at + 1, m10 * r + m11 * g + m12 * b + b1)
            _store(line, at + 2, m20 * r + m21 * g + m22 * b + b2)
            if channels == 4:
                _store(line, at + 3, np.float32(0))


@compiled
def train_range(images, rows, places, affines, table, scratch, out):
    """Training views of a range of samples, decided by numba_chance.decide_range.

    table    first i64 [R], weight f32 [R, T] of the whole enlarged side; T is 1 (no resampling), 4 or more
    scratch  lifted f32 [3, S], coloured f32 [S, 3S], columns f32 [W, 3S], turned f32 [S, channels * W], partial f32
    out      f32 or bfloat16 bits [n, H, channels * H]
    """
    first, weight = table
    lifted, coloured, columns, turned, partial = scratch
    crop, taps = out.shape[1], weight.shape[1]
    channels = out.shape[2] // crop
    for b in range(rows.shape[0]):
        image, affine, top, left, flip = images[rows[b]], affines[b], places[b, 0], places[b, 1], places[b, 2]
        if taps == 1:
            _copy_view(image, affine, top, left, flip != 0, channels, out[b])
            continue
        _colour_columns(image, first[left], first[left + crop - 1] + taps, affine, lifted, coloured)
        at, step = (left + crop - 1, -1) if flip else (left, 1)
        _across(coloured, table, at, step, crop, channels, partial, columns, turned)
        _combine_range(turned, 0, table, top, 1, 0, crop, partial, out[b])


@compiled
def test_range(images, rows, groups, views, tables, affine, scratch, out):
    """All V fixed views of a range of images; colouring and the horizontal pass are shared. Returns bad rows.

    groups  i64 [G, 4]  table, mirrored, first enlarged column, number of columns (0: no resampling)
    views   i64 [V, 4]  group, top, left in the enlarged image, left within the group's columns
    tables  firsts i64 [2, R], weights f32 [2, R, T]: of the enlarged image, and of the whole image at crop size
    out     f32 or bfloat16 bits [n * V, H, channels * H]
    """
    firsts, weights = tables
    lifted, coloured, columns, turned, partial = scratch
    side, crop, count, bad = images.shape[1], out.shape[1], views.shape[0], 0
    channels = out.shape[2] // crop
    for b in range(rows.shape[0]):
        if rows[b] < 0 or rows[b] >= images.shape[0]:
            bad += 1
            continue
        image = images[rows[b]]
        _colour_columns(image, 0, side, affine, lifted, coloured)
        for g in range(groups.shape[0]):
            table = firsts[groups[g, 0]], weights[groups[g, 0]]
            mirrored, low, width = groups[g, 1], groups[g, 2], groups[g, 3]
            at, step = (low + width - 1, -1) if mirrored else (low, 1)
            _across(coloured, table, at, step, width, channels, partial, columns, turned)
            for v in range(count):
                if views[v, 0] != g:
                    continue
                view, top = out[b * count + v], views[v, 1]
                if width == 0:
                    _copy_view(image, affine, top, views[v, 2], mirrored != 0, channels, view)
                    continue
                _combine_range(turned, channels * views[v, 3], table, top, 1, 0, crop, partial, view)
    return bad
