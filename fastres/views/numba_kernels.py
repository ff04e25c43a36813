"""Compiled loops behind numba_views for what is resampled.

The way of one image: its columns, of the rows that are shown, are lifted out of the bytes and coloured (16 times fewer
pixels than come out when upscaling by 4; exact, as resampling weights sum to 1), combined into output columns, turned
into rows while they are in the first-level cache, combined into output rows, rounded and written once. Compiled code
here calls nothing compiled elsewhere (numba_chance.py says why).
"""

import numba
import numpy as np
from numba.extending import overload

from fastres.views.numba_chance import compiled

TURNED_COLUMNS = 16
CUTMIX = 2  # as in mixing.py


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
def _colour_columns(image, start, stop, affine, lifted, out):
    """Columns start .. stop - 1 of some rows u8 [n, S, 3], coloured, into out f32 [S, 3S]: n reds, greens, blues."""
    side = image.shape[0]
    r, g, b = lifted[0], lifted[1], lifted[2]
    for x in range(start, stop):
        for c in range(3):
            for y in range(side):
                lifted[c, y] = image[y, x, c]
        line = out[x]
        for c in range(3):
            m0, m1, m2, shift, at = affine[c, 0], affine[c, 1], affine[c, 2], affine[c, 3], c * side
            for y in range(side):
                line[at + y] = m0 * r[y] + m1 * g[y] + m2 * b[y] + shift


@compiled
def _combine_four(lines, first, start, weight, out):
    """out = sum over four taps t of weight[t] * lines[first + t, start ..]. Without a branch: around one, Numba counts
    references to every slice with atomic instructions, which takes twice the time."""
    stop = start + out.shape[0]
    w0, w1, w2, w3 = weight[0], weight[1], weight[2], weight[3]
    a, b = lines[first][start:stop], lines[first + 1][start:stop]
    c, d = lines[first + 2][start:stop], lines[first + 3][start:stop]
    for k in range(out.shape[0]):
        _store(out, k, w0 * a[k] + w1 * b[k] + w2 * c[k] + w3 * d[k])


@compiled
def _combine_five(lines, first, start, weight, out):
    stop = start + out.shape[0]
    w0, w1, w2, w3, w4 = weight[0], weight[1], weight[2], weight[3], weight[4]
    a, b, c = lines[first][start:stop], lines[first + 1][start:stop], lines[first + 2][start:stop]
    d, e = lines[first + 3][start:stop], lines[first + 4][start:stop]
    for k in range(out.shape[0]):
        _store(out, k, w0 * a[k] + w1 * b[k] + w2 * c[k] + w3 * d[k] + w4 * e[k])


@compiled
def _combine_many(lines, first, start, weight, taps, partial, out):
    """The same for any number of taps, summed in `partial` f32."""
    partial[: out.shape[0]] = 0
    for t in range(taps):
        w, line = weight[t], lines[first + t]
        for k in range(out.shape[0]):
            partial[k] += w * line[start + k]
    for k in range(out.shape[0]):
        _store(out, k, partial[k])


@compiled
def _combine_range(lines, start, table, at, step, low, high, partial, count, out):
    """out[x][:count], x in low .. high - 1, by row at + step * x of the table (first, weight, taps that count)."""
    first, weight, taps = table
    if taps == 4:
        for x in range(low, high):
            i = at + step * x
            _combine_four(lines, first[i], start, weight[i], out[x][:count])
    elif taps == 5:
        for x in range(low, high):
            i = at + step * x
            _combine_five(lines, first[i], start, weight[i], out[x][:count])
    else:
        for x in range(low, high):
            i = at + step * x
            _combine_many(lines, first[i], start, weight[i], taps, partial, out[x][:count])


@compiled
def _turn(block, count, channels, start, rows, out):
    """Columns block f32 [count, 3n] into n rows (first, end) of out f32 [S, channels * W]; a fourth channel stays."""
    side = rows[1] - rows[0]
    for y in range(side):
        line = out[rows[0] + y][channels * start : channels * (start + count)]
        for x in range(count):
            for c in range(3):
                line[channels * x + c] = block[x, c * side + y]


@compiled
def _across(coloured, table, at, step, width, channels, partial, columns, rows, turned):
    """The horizontal pass: `width` columns from at + step * x of the table, turned into rows a few at a time."""
    for x in range(0, width, TURNED_COLUMNS):
        count = min(TURNED_COLUMNS, width - x)
        _combine_range(coloured, 0, table, at + step * x, step, 0, count, partial, 3 * (rows[1] - rows[0]), columns)
        _turn(columns, count, channels, x, rows, turned)


@compiled
def _blend(a, b, own, out_a, out_b):
    """own a + (1 - own) b into out_a and own b + (1 - own) a into out_b: lines."""
    for k in range(a.shape[0]):
        other = np.float32(1) - own[k]
        _store(out_a, k, own[k] * a[k] + other * b[k])
        _store(out_b, k, own[k] * b[k] + other * a[k])


@compiled
def _blend_four(turned, first_a, first_b, weight_a, weight_b, own, out_a, out_b):
    """_combine_four of both views of a pair and _blend, with no line between them."""
    a, b = turned[0], turned[1]
    v0, v1, v2, v3 = weight_a[0], weight_a[1], weight_a[2], weight_a[3]
    w0, w1, w2, w3 = weight_b[0], weight_b[1], weight_b[2], weight_b[3]
    a0, a1, a2, a3 = a[first_a], a[first_a + 1], a[first_a + 2], a[first_a + 3]
    b0, b1, b2, b3 = b[first_b], b[first_b + 1], b[first_b + 2], b[first_b + 3]
    for k in range(out_a.shape[0]):
        x = v0 * a0[k] + v1 * a1[k] + v2 * a2[k] + v3 * a3[k]
        y = w0 * b0[k] + w1 * b1[k] + w2 * b2[k] + w3 * b3[k]
        other = np.float32(1) - own[k]
        _store(out_a, k, own[k] * x + other * y)
        _store(out_b, k, own[k] * y + other * x)


@compiled
def _mix_pair(turned, tables, tops, erased, rows, own, partial, lines, channels, out):
    """The vertical passes of the two views of a pair, mixed in some rows (first, end) by `own` f32 [channels * H]."""
    (first_a, weight_a, taps_a), (first_b, weight_b, taps_b) = tables
    at_once, wide = taps_a == 4 and taps_b == 4 and erased.shape[0] == 0, out.shape[2]
    for half in range(2):
        _combine_range(turned[half], 0, tables[half], tops[half], 1, 0, rows[0], partial, wide, out[half])
        _combine_range(turned[half], 0, tables[half], tops[half], 1, rows[1], out.shape[1], partial, wide, out[half])
        if half < erased.shape[0]:
            top, left, bottom, right = erased[half]
            out[half, top:bottom, channels * left : channels * right] = 0
    for y in range(rows[0], rows[1]):
        if at_once:
            i, j = tops[0] + y, tops[1] + y
            _blend_four(turned, first_a[i], first_b[j], weight_a[i], weight_b[j], own, out[0, y], out[1, y])
            continue
        for half in range(2):
            _combine_range(turned[half], 0, tables[half], tops[half] + y, 1, 0, 1, partial, wide, lines[half])
            if half < erased.shape[0] and erased[half, 0] <= y and y < erased[half, 2]:
                lines[half, 0, channels * erased[half, 1] : channels * erased[half, 3]] = 0
        _blend(lines[0, 0], lines[1, 0], own, out[0, y], out[1, y])


@compiled
def _prepare(image, affine, down, across, place, channels, crop, scratch, turned):
    """The horizontal pass of a training view at a place (top, left, flip, ...): of the rows that its taps reach."""
    (lifted, coloured, columns, partial), (first, _, taps), at = scratch, across, place[1]
    rows = down[0][place[0]], down[0][place[0] + crop - 1] + down[2]
    _colour_columns(image[rows[0] : rows[1]], first[at], first[at + crop - 1] + taps, affine, lifted, coloured)
    start, step = (at + crop - 1, -1) if place[2] else (at, 1)
    _across(coloured, across, start, step, crop, channels, partial, columns, rows, turned)


@compiled
def train_range(images, rows, places, affines, tables, erased, scratch, out):
    """Training views of a range of samples, decided by numba_colour.

    tables   firsts i64 [N, 2, R], weights f32 [N, 2, R, T], taps i64 [N, 2]: down and across; N = n, or 1 for all
    erased   i64 [n, 4] of top, left, bottom, right, or [0, 4] where nothing is
    scratch  numba_tables.Memory.resample; out: f32 or bfloat16 bits [n, H, channels * H]
    """
    (firsts, weights, taps), turned, crop = tables, scratch[4][0], out.shape[1]
    channels = out.shape[2] // crop
    for b in range(rows.shape[0]):
        t = b if firsts.shape[0] > 1 else 0
        down, across = (firsts[t, 0], weights[t, 0], taps[t, 0]), (firsts[t, 1], weights[t, 1], taps[t, 1])
        _prepare(images[rows[b]], affines[b], down, across, places[b], channels, crop, scratch[:4], turned)
        _combine_range(turned, 0, down, places[b, 0], 1, 0, crop, scratch[3], out.shape[2], out[b])
        if b < erased.shape[0]:
            top, left, bottom, right = erased[b]
            out[b, top:bottom, channels * left : channels * right] = 0


@compiled
def mixed_range(images, rows, places, affines, tables, erased, mixtures, scratch, out):
    """The same for the pairs of a range. mixtures: kinds i64 [P], own f64 [P], patches i64 [P, 4] of 2 P samples."""
    (firsts, weights, taps), (kinds, own, patches), crop = tables, mixtures, out.shape[1]
    turned, lines, line, partial = scratch[4], scratch[5][:2], scratch[5][2, 0], scratch[3]
    channels = out.shape[2] // crop
    for p in range(kinds.shape[0]):
        a, b = 2 * p, 2 * p + 1
        s, t = (a, b) if firsts.shape[0] > 1 else (0, 0)
        for half in range(2):
            n, i = a + half, t if half else s
            down, across = (firsts[i, 0], weights[i, 0], taps[i, 0]), (firsts[i, 1], weights[i, 1], taps[i, 1])
            _prepare(images[rows[n]], affines[n], down, across, places[n], channels, crop, scratch[:4], turned[half])
        both = (firsts[s, 0], weights[s, 0], taps[s, 0]), (firsts[t, 0], weights[t, 0], taps[t, 0])
        line[:], mixed = own[p], (0, crop if kinds[p] else 0)
        if kinds[p] == CUTMIX:
            line[:], mixed = 1, (patches[p, 0], patches[p, 2])
            line[channels * patches[p, 1] : channels * patches[p, 3]] = 0
        tops, boxes = (places[a, 0], places[b, 0]), erased[a : b + 1]
        _mix_pair(turned, both, tops, boxes, mixed, line, partial, lines, channels, out[a : b + 1])


@compiled
def test_range(images, rows, groups, views, count, tables, affine, scratch, out):
    """The resampled fixed views of a range of images; colouring and the horizontal pass are shared. Returns bad rows.
    groups, views, tables: of numba_tables.test_tables; out: f32 or bfloat16 bits [n * count, H, channels * H]."""
    firsts, weights = tables
    (lifted, coloured, columns, partial), turned = scratch[:4], scratch[4][0]
    side, crop, bad = images.shape[1], out.shape[1], 0
    channels, taps = out.shape[2] // crop, weights.shape[2]
    for b in range(rows.shape[0]):
        if rows[b] < 0 or rows[b] >= images.shape[0]:
            bad += 1
            continue
        _colour_columns(images[rows[b]], 0, side, affine, lifted, coloured)
        for g in range(groups.shape[0]):
            table = firsts[groups[g, 0]], weights[groups[g, 0]], taps
            mirrored, low, width = groups[g, 1], groups[g, 2], groups[g, 3]
            at, step = (low + width - 1, -1) if mirrored else (low, 1)
            _across(coloured, table, at, step, width, channels, partial, columns, (0, side), turned)
            for v in range(views.shape[0]):
                if views[v, 0] == g:
                    view, start = out[b * count + views[v, 1]], channels * views[v, 3]
                    _combine_range(turned, start, table, views[v, 2], 1, 0, crop, partial, out.shape[2], view)
    return bad
