"""Compiled colour and taps of numba_views: what each view's pixels are weighted with, before any is written."""

import math

import numpy as np

from fastres.views.numba_chance import compiled

CONTRAST = 1  # jitter kinds in colour.py's order: brightness, contrast, saturation


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
        if share == 0:  # outside of the view
            continue
        for k in range(3 * side):
            sums[k] += share * np.float32(line[k])
    mean[:] = 0
    for x in range(side):
        for c in range(3):
            mean[c] += np.float64(column_share[x]) * sums[3 * x + c]


@compiled
def _keys_cubic(x):
    """resample._keys_cubic of one distance."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0)
    return 0.0


@compiled
def _taps(start, length, side, first, weight, share, parts):
    """The rows of resample.box_matrices for one box, one way: first i64 [H] and weight f32 [H, T] receive the taps of
    each output row, share f64 [S] the mean of all rows. Returns how many taps count. parts: f64 [S] of scratch."""
    count = weight.shape[0]
    step = length / count
    stretch = max(step, 1.0)
    taps = min(int(math.ceil(4.0 * stretch)), weight.shape[1])
    share[:] = 0
    reach = 2.0 * stretch + 0.5
    above = int(reach) + 1  # so that a conversion to a whole number, which cuts towards 0, rounds down
    for i in range(count):
        centre = start + (i + 0.5) * step
        lowest = int(centre - reach + above) - above + 1  # the first sample within reach
        low = min(max(lowest, 0), side - taps)
        first[i] = low
        row = weight[i]
        if step <= 1.0 and low == lowest:  # nothing cut off: four polynomials, which sum to 1
            t = centre - (low + 1.5)
            w0, w3 = ((-0.5 * t + 1.0) * t - 0.5) * t, (0.5 * t - 0.5) * t * t
            w1 = (1.5 * t - 2.5) * t * t + 1.0
            w2 = 1.0 - w0 - w1 - w3
            row[0], row[1], row[2], row[3] = w0, w1, w2, w3
            share[low] += w0
            share[low + 1] += w1
            share[low + 2] += w2
            share[low + 3] += w3
            continue
        total = 0.0
        for tap in range(taps):
            parts[tap] = _keys_cubic((low + tap + 0.5 - centre) / stretch)
            total += parts[tap]
        for tap in range(taps):
            row[tap] = parts[tap] / total
            share[low + tap] += parts[tap] / total
    for s in range(side):
        share[s] /= count
    return taps


@compiled
def _copy(affine, out):
    """Number by number: for an assignment of arrays Numba compiles, for seven seconds, the text of an error."""
    for c in range(3):
        for k in range(4):
            out[c, k] = affine[c, k]


@compiled
def decide(images, rows, places, reals, shares, constants, orders, scratch, affines):
    """Colour a range of samples with fixed crops. Returns how many of `rows` are not among the images.

    places, reals  of numba_chance.draw_range
    shares   f32 [room + 1, S]  by crop offset, each source row's share of the crop's mean
    scratch  sums f32 [3S], mean f64 [3], affine f64 [3, 4], share f64 [S], row and column share f32 [S], parts f64 [S]
    affines  f32 [n, 3, 4]  receives C | b: x = C rgb + b, normalised, for rgb in 0 .. 255
    """
    sums, mean, affine = scratch[0], scratch[1], scratch[2]
    bad = 0
    for b in range(rows.shape[0]):
        if rows[b] < 0 or rows[b] >= images.shape[0]:
            bad += 1
            continue
        place = places[b]
        _mean_colour(images[rows[b]], shares[place[0]], shares[place[1]], sums, mean)
        _compose(mean, orders[place[3]], reals[b], constants, affine)
        _copy(affine, affines[b])
    return bad


@compiled
def decide_boxes(images, rows, places, reals, boxes, constants, orders, scratch, tables, affines):
    """The same with resized crops. boxes f64 [n, 4]: of numba_chance.draw_boxes.

    tables  firsts i64 [n, 2, H], weights f32 [n, 2, H, T], taps i64 [n, 2] receive the taps down and across; the
            offset in `places` becomes 0
    """
    firsts, weights, taps = tables
    sums, mean, affine, share, row_share, column_share, parts = scratch
    side, bad = images.shape[1], 0
    for b in range(rows.shape[0]):
        if rows[b] < 0 or rows[b] >= images.shape[0]:
            bad += 1
            continue
        place, box = places[b], boxes[b]
        place[0] = place[1] = 0
        taps[b, 0] = _taps(box[0], box[2], side, firsts[b, 0], weights[b, 0], share, parts)
        for s in range(side):
            row_share[s] = share[s]
        taps[b, 1] = _taps(box[1], box[3], side, firsts[b, 1], weights[b, 1], share, parts)
        for s in range(side):
            column_share[s] = share[s]
        _mean_colour(images[rows[b]], row_share, column_share, sums, mean)
        _compose(mean, orders[place[3]], reals[b], constants, affine)
        _copy(affine, affines[b])
    return bad
