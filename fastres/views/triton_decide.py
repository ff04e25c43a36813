"""Boxes, taps and mixtures of a batch on a GPU, before its pixels: a program decides for one sample.

boxes.py, resample.box_matrices and mixing.py in float64. views_kernel and mix_kernel read what is left here.
"""

import triton
import triton.language as tl

from fastres.views.triton_chance import unit


@triton.jit
def _words(sample, key, block):
    """The four words of a block; key i64 [3]: seed, stage, epoch."""
    seed = tl.load(key)
    stage, epoch = tl.load(key + 1).to(tl.uint32), tl.load(key + 2).to(tl.uint32)
    zero = stage * 0
    return tl.philox_impl(sample, epoch, stage, zero + block, seed.to(tl.uint32), (seed >> 32).to(tl.uint32))


@triton.jit
def _shape(sample, key, law, BLOCK: tl.constexpr, CROP: tl.constexpr):
    """Height and width, f64 shares of the side, of the first of ten tries that fits, and whether one does. CROP: pixels
    of the view that must be larger both ways; 0: one that the whole may fill. law f64 [4]: scale, logarithms of ratio.
    """
    low, more = tl.load(law), tl.load(law + 1) - tl.load(law)
    narrow, wider = tl.load(law + 2), tl.load(law + 3) - tl.load(law + 2)
    height, width, found = low * 0.0, low * 0.0, low < 0.0
    for number in tl.static_range(5):
        w0, w1, w2, w3 = _words(sample, key, BLOCK + number)
        for half in tl.static_range(2):
            area = low + more * unit(w2 if half else w0).to(tl.float64)
            ratio = tl.exp(narrow + wider * unit(w3 if half else w1).to(tl.float64))
            down, across = tl.sqrt(area / ratio), tl.sqrt(area * ratio)
            longest = tl.maximum(down, across)
            fits = tl.floor(longest * CROP + 0.5) < CROP if CROP else longest <= 1.0
            take = fits & (found == 0)
            height, width = tl.where(take, down, height), tl.where(take, across, width)
            found = found | fits
    return height, width, found


@triton.jit
def _cubic(x):
    """resample._keys_cubic."""
    x = tl.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1.0, -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0)
    return tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))


@triton.jit
def _taps(
    start, length, first, weight, share, begin,
    SIDE: tl.constexpr, CROP: tl.constexpr, TAPS: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One way of a box: first i32 [H], weight f32 [H, T], share f32 [S], begin i32 [S + 1] (see triton_views) receive
    it. TALL >= H and WIDE > S: powers of two."""
    step = length / CROP
    stretch = tl.maximum(step, 1.0)
    row, source = tl.arange(0, TALL), tl.arange(0, WIDE)
    known = row < CROP
    centre = start + (row.to(tl.float64) + 0.5) * step
    lowest = tl.floor(centre - 2.0 * stretch - 0.5).to(tl.int32) + 1
    low = tl.minimum(tl.maximum(lowest, 0), SIDE - TAPS)
    total = centre * 0.0
    for tap in tl.static_range(TAPS):
        total += _cubic(((low + tap).to(tl.float64) + 0.5 - centre) / stretch)
    total = tl.where(known, total, 1.0)
    for tap in tl.static_range(TAPS):
        part = _cubic(((low + tap).to(tl.float64) + 0.5 - centre) / stretch) / total
        tl.store(weight + TAPS * row + tap, part.to(tl.float32), mask=known)
    tl.store(first + row, low, mask=known)
    sums, below = source.to(tl.float64) * 0.0, source * 0
    for one in range(0, CROP):  # again, row by row: nothing that this program has stored is read back
        middle = start + (one + 0.5) * step
        begins = tl.floor(middle - 2.0 * stretch - 0.5).to(tl.int32) + 1
        begins = tl.minimum(tl.maximum(begins, 0), SIDE - TAPS)
        parts = _cubic((source.to(tl.float64) + 0.5 - middle) / stretch)
        parts = tl.where(source < SIDE, parts, 0.0)
        sums += parts / tl.sum(parts, 0)
        below += (begins < source).to(tl.int32)
    tl.store(share + source, (sums / CROP).to(tl.float32), mask=source < SIDE)
    tl.store(begin + source, below, mask=source <= SIDE)


@triton.jit
def _box(sample, key, law, middle, SIDE: tl.constexpr):
    """boxes.crop_boxes in pixels of the image: top, left, height, width."""
    height, width, found = _shape(sample, key, law, 8, 0)
    w0, w1, _, _ = _words(sample, key, 7)
    height = tl.where(found, height, tl.load(middle))
    width = tl.where(found, width, tl.load(middle + 1))
    down, across = tl.where(found, unit(w0).to(tl.float64), 0.5), tl.where(found, unit(w1).to(tl.float64), 0.5)
    return down * (1.0 - height) * SIDE, across * (1.0 - width) * SIDE, height * SIDE, width * SIDE


@triton.jit
def _erase(sample, key, law, below, erased, CROP: tl.constexpr):
    """boxes.erased_boxes into erased i32 [4]."""
    gate, w1, w2, _ = _words(sample, key, 6)
    height, width, found = _shape(sample, key, law, 16, CROP)
    wanted = found & (gate.to(tl.int64) < below)
    tall, wide = tl.floor(height * CROP + 0.5).to(tl.uint32), tl.floor(width * CROP + 0.5).to(tl.uint32)
    top, left = tl.umulhi(w1, CROP + 1 - tall), tl.umulhi(w2, CROP + 1 - wide)
    tl.store(erased, tl.where(wanted, top, 0).to(tl.int32))
    tl.store(erased + 1, tl.where(wanted, left, 0).to(tl.int32))
    tl.store(erased + 2, tl.where(wanted, top + tall, 0).to(tl.int32))
    tl.store(erased + 3, tl.where(wanted, left + wide, 0).to(tl.int32))


@triton.jit
def _span(word, half, CROP: tl.constexpr):
    """First and end of CutMix's box one way, cut by the view's edges."""
    centre = tl.umulhi(word, (word * 0) + CROP).to(tl.int32)
    return tl.maximum(centre - half, 0), tl.minimum(centre + half, CROP)


@triton.jit
def _mixture(first, key, below, cuts_below, tables, STEPS: tl.constexpr, CROP: tl.constexpr):
    """mixing.mixtures of the pair whose first sample is `first`: kind, own f64, top, left, bottom, right."""
    gate, which, weight, _ = _words(first, key, 4)
    w0, w1, _, _ = _words(first, key, 5)
    mixed, cuts = gate.to(tl.int64) < below, which.to(tl.int64) < cuts_below
    at = tables + (weight >> 20).to(tl.int32) + tl.where(cuts, STEPS + 1, 0)
    part = ((weight >> 8) & 0xFFF).to(tl.float64) / STEPS
    own = tl.load(at) + part * (tl.load(at + 1) - tl.load(at))
    half = (0.5 * tl.sqrt(1.0 - own) * CROP).to(tl.int32)
    top, bottom = _span(w0, half, CROP)
    left, right = _span(w1, half, CROP)
    kept = 1.0 - ((bottom - top) * (right - left)).to(tl.float64) / (CROP * CROP)
    kind = tl.where(mixed, tl.where(cuts, 2, 1), 0)
    return kind, tl.where(mixed, tl.where(cuts, kept, own), 1.0), top, left, bottom, right


@triton.jit(do_not_specialize=["count"])
def decide_kernel(
    ids, count, key,
    crop_law, middle, first, weight, share, begin,  # of resized crops
    erase_law, erase_below, erased,
    mix_below, cuts_below, tables, own, pairs,  # of mixtures: f32 [B], i32 [B // 2, 5]
    BOX: tl.constexpr, ERASE: tl.constexpr, MIX: tl.constexpr, STEPS: tl.constexpr,
    SIDE: tl.constexpr, CROP: tl.constexpr, TAPS: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Program n decides for sample n (triton_views: shapes)."""
    n = tl.program_id(0)
    sample = tl.load(ids + n).to(tl.uint32)
    if BOX:
        top, left, height, width = _box(sample, key, crop_law, middle, SIDE)
        down, across = 2 * n, 2 * n + 1
        _taps(top, height, first + down * CROP, weight + down * CROP * TAPS, share + down * SIDE,
              begin + down * (SIDE + 1), SIDE, CROP, TAPS, TALL, WIDE)  # fmt: skip
        _taps(left, width, first + across * CROP, weight + across * CROP * TAPS, share + across * SIDE,
              begin + across * (SIDE + 1), SIDE, CROP, TAPS, TALL, WIDE)  # fmt: skip
    if ERASE:
        _erase(sample, key, erase_law, erase_below, erased + 4 * n, CROP)
    if MIX:
        pair = n // 2
        partner = tl.load(ids + 2 * pair).to(tl.uint32)
        kind, share_kept, y0, x0, y1, x1 = _mixture(partner, key, mix_below, cuts_below, tables, STEPS, CROP)
        alone = 2 * pair + 1 >= count  # the last of an odd batch
        tl.store(own + n, tl.where(alone, 1.0, share_kept).to(tl.float32))
        to = pairs + 5 * pair
        is_first = (n % 2 == 0) & (alone == 0)
        tl.store(to, kind, mask=is_first)
        tl.store(to + 1, y0, mask=is_first)
        tl.store(to + 2, x0, mask=is_first)
        tl.store(to + 3, y1, mask=is_first)
        tl.store(to + 4, x1, mask=is_first)


@triton.jit
def mix_kernel(views, own, pairs, CROP: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Program (p, k): numbers k * BLOCK .. of both views of pair p, NHWC, each mixed with the other's."""
    pair = tl.program_id(0)
    SIZE: tl.constexpr = CROP * CROP * CHANNELS
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = at < SIZE
    row, column = at // (CROP * CHANNELS), at // CHANNELS % CROP
    to = pairs + 5 * pair
    kind = tl.load(to)
    inside = (row >= tl.load(to + 1)) & (row < tl.load(to + 3))
    inside = inside & (column >= tl.load(to + 2)) & (column < tl.load(to + 4))
    share = tl.load(own + 2 * pair)
    a = views + (2 * pair).to(tl.int64) * SIZE + at
    one, other = tl.load(a, mask=known).to(tl.float32), tl.load(a + SIZE, mask=known).to(tl.float32)
    cut, blend = (kind == 2) & inside, kind == 1
    first = tl.where(blend, share * one + (1.0 - share) * other, tl.where(cut, other, one))
    second = tl.where(blend, share * other + (1.0 - share) * one, tl.where(cut, one, other))
    tl.store(a, first.to(views.dtype.element_ty), mask=known)
    tl.store(a + SIZE, second.to(views.dtype.element_ty), mask=known)
