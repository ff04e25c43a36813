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
def _march(
    at, out, known, across, first, weight, begin, rest, SIDE: tl.constexpr, WIDE: tl.constexpr, ERASE: tl.constexpr
):
    """Rows start .. stop - 1 of a block of flat columns, four taps each way; weight f32 [rows, 4].

    at     where the first of each column's four pixels is in row 0 of the image
    across where the first of each column's four weights is
    rest   top of the crop, start, stop, by column the weights of red, green, blue and what is added, first and end of
           the rows that are erased where a column is, and whether it is
    begin  i32 [S + 1], the first enlarged row whose taps begin at this source row or below it
    """
    top, start, stop, red, green, blue, shift, hole, end, gone = rest
    w0, w1, w2, w3 = tl.load(across), tl.load(across + 1), tl.load(across + 2), tl.load(across + 3)
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
            if ERASE:
                value = tl.where(gone & (row >= hole) & (row < end), 0.0, value)
            tl.store(out + row * WIDE, value.to(out.dtype.scalar.element_ty), mask=known)


@triton.jit
def _gather(
    at, out, known, across, first, weight, taps, rest,
    SIDE: tl.constexpr, WIDE: tl.constexpr, TAPS: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """The same for any number of taps, one output pixel at a time; of weight f32 [rows, TAPS] `taps` count."""
    top, start, stop, red, green, blue, shift, hole, end, gone = rest
    for row in range(start, stop):
        value = shift
        y = tl.load(first + top + row)
        for down in range(0, taps):
            line = tl.zeros_like(shift)
            for right in range(0, taps):
                line += tl.load(across + right) * _pixel(at + (y + down) * (3 * SIDE) + 3 * right, red, green, blue)
            value += tl.load(weight + TAPS * (top + row) + down) * line
        if ERASE:
            value = tl.where(gone & (row >= hole) & (row < end), 0.0, value)
        tl.store(out + row * WIDE, value.to(out.dtype.scalar.element_ty), mask=known)


@triton.jit
def _mix(channel, of_red, of_green, of_blue):
    """A coefficient of each output's own channel; 0 for the fourth."""
    return tl.where(channel == 0, of_red, tl.where(channel == 1, of_green, tl.where(channel == 2, of_blue, 0.0)))


@triton.jit
def _row_of(rows, ids, sample, known):
    """The sample's row and 0.0; where its row is not among the `known` images, or its id no word, 0 and a NaN, which
    is then added to its view."""
    row, name = tl.load(rows + sample), tl.load(ids + sample)  # of test views both are the row
    fit = (row >= 0) & (row < known) & (name >= 0) & (name < 4294967296)
    return tl.where(fit, row, 0), tl.where(fit, 0.0, float("nan"))


@triton.jit
def _write(
    image, to, flat, columns, table, taps, rest,
    MARCH: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr, TAPS: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """The outputs `flat` of the view's rows, by the walk that its taps allow. table: first and weight of rows, begin,
    first and weight of columns."""
    first, weight, begin, column_first, column_weight = table
    at, known = image + 3 * tl.load(column_first + columns), flat < WIDE
    across = column_weight + TAPS * columns
    if MARCH:
        _march(at, to + flat, known, across, first, weight, begin, rest, SIDE, WIDE, ERASE)
    else:
        _gather(at, to + flat, known, across, first, weight, taps, rest, SIDE, WIDE, TAPS, ERASE)


# a batch's own images differ in number, its ids in where they begin: neither must compile anew
@triton.jit(do_not_specialize=["known"], do_not_specialize_on_alignment=["rows", "ids"])
def views_kernel(
    images, rows, ids, out,
    known,  # number of images
    first, weight, begin, constants,
    key, widths, flip_below, shares, orders,  # of training views
    views, affine, taps,  # of test views: i32 [VIEWS, 6], f32 [12], 1
    erased,  # i32 [samples, 4]: top, left, bottom, right
    ROOM: tl.constexpr, VIEWS: tl.constexpr, TRAIN: tl.constexpr, MARCH: tl.constexpr, SIDE: tl.constexpr,
    CROP: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    LINE: tl.constexpr, BOX: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """Program (n, k) makes rows k * ROWS .. of view n: sample n // VIEWS, view n % VIEWS (triton_views: shapes)."""
    view, sample = tl.program_id(0), tl.program_id(0) // VIEWS
    row, nothing = _row_of(rows, ids, sample, known)
    image = images + row * (3 * SIDE * SIDE)
    if TRAIN:
        top, left, flip, order, f0, f1, f2, l0, l1, l2 = draw(tl.load(ids + sample), key, ROOM + 1, flip_below, widths)
        if BOX:  # a table for each sample, of rows and then of columns
            top, left = 0, 0
            across = 2 * sample + 1
            column_first, column_weight = first + across * CROP, weight + across * (CROP * TAPS)
            first, weight = column_first - CROP, column_weight - CROP * TAPS
            begin, shares = begin + 2 * sample * (SIDE + 1), shares + 2 * sample * SIDE
            r, g, b = mean_colour(image, shares, shares + SIDE, SIDE, LINE, 8)
        else:
            column_first, column_weight = first, weight
            r, g, b = mean_colour(image, shares + top * SIDE, shares + left * SIDE, SIDE, LINE, 8)
        c00, c01, c02, b0, c10, c11, c12, b1, c20, c21, c22, b2 = compose(
            r, g, b, order, f0, f1, f2, l0, l1, l2, orders, constants
        )
    else:
        of_view = views + 6 * (view % VIEWS)
        top, left, flip = tl.load(of_view), tl.load(of_view + 1), tl.load(of_view + 2) != 0
        taps, table = tl.load(of_view + 3), tl.load(of_view + 4)
        first, weight, begin = first + table, weight + TAPS * table, begin + tl.load(of_view + 5)
        column_first, column_weight = first, weight
        c00, c01, c02, b0 = tl.load(affine), tl.load(affine + 1), tl.load(affine + 2), tl.load(affine + 3)
        c10, c11, c12, b1 = tl.load(affine + 4), tl.load(affine + 5), tl.load(affine + 6), tl.load(affine + 7)
        c20, c21, c22, b2 = tl.load(affine + 8), tl.load(affine + 9), tl.load(affine + 10), tl.load(affine + 11)
    WIDE: tl.constexpr = CROP * CHANNELS
    start = tl.program_id(1) * ROWS
    stop = tl.minimum(start + ROWS, CROP)
    to = out + view.to(tl.int64) * (CROP * WIDE)
    hole, end, from_x, to_x = 0, 0, 0, 0
    if ERASE:
        box = erased + 4 * sample
        hole, from_x, end, to_x = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    for block in range(0, WIDE, BLOCK):
        flat = block + tl.arange(0, BLOCK)
        channel = flat % CHANNELS
        red, green, blue = _mix(channel, c00, c10, c20), _mix(channel, c01, c11, c21), _mix(channel, c02, c12, c22)
        x = tl.minimum(flat // CHANNELS, CROP - 1)
        gone = (x >= from_x) & (x < to_x)
        rest = (top, start, stop, red, green, blue, _mix(channel, b0, b1, b2) + nothing, hole, end, gone)
        columns = left + tl.where(flip, CROP - 1 - x, x)
        both = (first, weight, begin, column_first, column_weight)
        _write(image, to, flat, columns, both, taps, rest, MARCH, SIDE, WIDE, TAPS, ERASE)
