"""One launch for a batch of views on a GPU: a program makes a few output rows of one view.

A program marches down its rows. For a block of flat output columns (pixel, channel) it keeps the last four source
rows, already resampled across and coloured (12 bytes in, one number out), in registers; each output row is a
weighted sum of the four and is written as one contiguous line. So every source row is resampled once, nothing but
pixels is read, nothing goes through shared memory, and stores are whole. Where nothing is enlarged (no resampling,
or shrinking with more than four taps) a plain loop over taps takes the place of the march.

Chance, mean colour and colour matrix are worked out anew by each program of a view: a few per cent of its work.
"""

import triton
import triton.language as tl

from fastres.views.triton_chance import compose, draw, mean_colour


@triton.jit
def _pixel(at, red, green, blue):
    """Bytes at .. at + 2, weighted."""
    value = red * tl.load(at).to(tl.float32)
    value += green * tl.load(at + 1).to(tl.float32)
    return value + blue * tl.load(at + 2).to(tl.float32)


@triton.jit
def _line(at, w0, w1, w2, w3, red, green, blue, shift):
    """One source row, resampled across and coloured: four pixels from `at` on, for each flat output column."""
    value = w0 * _pixel(at, red, green, blue) + shift
    value += w1 * _pixel(at + 3, red, green, blue)
    value += w2 * _pixel(at + 6, red, green, blue)
    return value + w3 * _pixel(at + 9, red, green, blue)


@triton.jit
def _march(at, out, known, columns, first, weight, begin, rest, SIDE: tl.constexpr, WIDE: tl.constexpr):
    """Rows start .. stop - 1 of a block of flat columns, four taps each way; weight f32 [rows, 4] serves both ways.

    at     where the first of each column's four pixels is in row 0 of the image
    rest   top of the crop, start, stop, and by column the weights of red, green, blue and what is added
    begin  i32 [S + 1], the first enlarged row whose taps begin at this source row or below it
    """
    top, start, stop, red, green, blue, shift = rest
    w0, w1 = tl.load(weight + 4 * columns), tl.load(weight + 4 * columns + 1)
    w2, w3 = tl.load(weight + 4 * columns + 2), tl.load(weight + 4 * columns + 3)
    y = tl.load(first + top + start)
    last = tl.load(first + top + stop - 1)
    line1 = _line(at + y * (3 * SIDE), w0, w1, w2, w3, red, green, blue, shift)
    line2 = _line(at + (y + 1) * (3 * SIDE), w0, w1, w2, w3, red, green, blue, shift)
    line3 = _line(at + (y + 2) * (3 * SIDE), w0, w1, w2, w3, red, green, blue, shift)
    for source in range(y, last + 1):
        line0, line1, line2 = line1, line2, line3
        line3 = _line(at + (source + 3) * (3 * SIDE), w0, w1, w2, w3, red, green, blue, shift)
        low = tl.maximum(tl.load(begin + source) - top, start)
        high = tl.minimum(tl.load(begin + source + 1) - top, stop)
        for row in range(low, high):
            r = weight + 4 * (top + row)
            value = tl.load(r) * line0 + tl.load(r + 1) * line1 + tl.load(r + 2) * line2 + tl.load(r + 3) * line3
            tl.store(out + row * WIDE, value.to(out.dtype.scalar.element_ty), mask=known)


@triton.jit
def _gather(
    at, out, known, columns, first, weight, taps, rest, SIDE: tl.constexpr, WIDE: tl.constexpr, TAPS: tl.constexpr
):
    """The same for any number of taps, one output pixel at a time; of weight f32 [rows, TAPS] `taps` count."""
    top, start, stop, red, green, blue, shift = rest
    for row in range(start, stop):
        value = shift
        y = tl.load(first + top + row)
        for down in range(0, taps):
            across = tl.zeros_like(shift)
            for right in range(0, taps):
                share = tl.load(weight + TAPS * columns + right)
                across += share * _pixel(at + (y + down) * (3 * SIDE) + 3 * right, red, green, blue)
            value += tl.load(weight + TAPS * (top + row) + down) * across
        tl.store(out + row * WIDE, value.to(out.dtype.scalar.element_ty), mask=known)


@triton.jit
def views_kernel(
    images, rows, ids, out, first, weight, begin, constants,
    key, widths, flip_below, shares, orders,  # of training views
    views, affine,  # of test views: i32 [VIEWS, 6], f32 [12]
    taps, ROOM: tl.constexpr, VIEWS: tl.constexpr, TRAIN: tl.constexpr, MARCH: tl.constexpr, SIDE: tl.constexpr,
    CROP: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    LINE: tl.constexpr,
):  # fmt: skip
    """Program (n, k) makes rows k * ROWS .. of view n: sample n // VIEWS, view n % VIEWS (triton_views: shapes)."""
    view = tl.program_id(0)
    sample = view // VIEWS
    image = images + tl.load(rows + sample) * (3 * SIDE * SIDE)
    if TRAIN:
        top, left, flip, order, f0, f1, f2, l0, l1, l2 = draw(tl.load(ids + sample), key, ROOM + 1, flip_below, widths)
        r, g, b = mean_colour(image, shares + top * SIDE, shares + left * SIDE, SIDE, LINE, 8)
        c00, c01, c02, b0, c10, c11, c12, b1, c20, c21, c22, b2 = compose(
            r, g, b, order, f0, f1, f2, l0, l1, l2, orders, constants
        )
    else:
        of_view = views + 6 * (view % VIEWS)
        top, left, flip = tl.load(of_view), tl.load(of_view + 1), tl.load(of_view + 2) != 0
        taps, table = tl.load(of_view + 3), tl.load(of_view + 4)
        first, weight, begin = first + table, weight + TAPS * table, begin + tl.load(of_view + 5)
        c00, c01, c02, b0 = tl.load(affine), tl.load(affine + 1), tl.load(affine + 2), tl.load(affine + 3)
        c10, c11, c12, b1 = tl.load(affine + 4), tl.load(affine + 5), tl.load(affine + 6), tl.load(affine + 7)
        c20, c21, c22, b2 = tl.load(affine + 8), tl.load(affine + 9), tl.load(affine + 10), tl.load(affine + 11)
    WIDE: tl.constexpr = CROP * CHANNELS
    start = tl.program_id(1) * ROWS
    stop = tl.minimum(start + ROWS, CROP)
    to = out + view.to(tl.int64) * (CROP * WIDE)
    for block in range(0, WIDE, BLOCK):
        flat = block + tl.arange(0, BLOCK)
        known = flat < WIDE
        x = tl.minimum(flat // CHANNELS, CROP - 1)
        channel = flat % CHANNELS
        columns = left + tl.where(flip, CROP - 1 - x, x)
        red = tl.where(channel == 0, c00, tl.where(channel == 1, c10, tl.where(channel == 2, c20, 0.0)))
        green = tl.where(channel == 0, c01, tl.where(channel == 1, c11, tl.where(channel == 2, c21, 0.0)))
        blue = tl.where(channel == 0, c02, tl.where(channel == 1, c12, tl.where(channel == 2, c22, 0.0)))
        shift = tl.where(channel == 0, b0, tl.where(channel == 1, b1, tl.where(channel == 2, b2, 0.0)))
        at = image + 3 * tl.load(first + columns)
        rest = (top, start, stop, red, green, blue, shift)
        if MARCH:
            _march(at, to + flat, known, columns, first, weight, begin, rest, SIDE, WIDE)
        else:
            _gather(at, to + flat, known, columns, first, weight, taps, rest, SIDE, WIDE, TAPS)
