"""Chance and colour of triton_kernels: scalars that each program works out for its view, as draw.py and colour.py do.

Integers are bit-identical to draw.py; floats start from the same 24-bit integers. The colour matrix is composed in
float64, because contrast subtracts numbers that nearly cancel.
"""

import triton
import triton.language as tl


@triton.jit
def unit(word):
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2^-24


@triton.jit
def draw(sample, key, room_plus_1, flip_below, widths):
    """draw.draw for one sample. key i64 [3]: seed, stage, epoch; widths f64 [4]: jitter half-widths, lighting std."""
    seed = tl.load(key)
    low, high = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    stage, epoch = tl.load(key + 1).to(tl.uint32), tl.load(key + 2).to(tl.uint32)
    sample = sample.to(tl.uint32)
    zero = stage * 0
    top, left, flip, order = tl.philox_impl(sample, epoch, stage, zero, low, high)
    top, left = tl.umulhi(top, zero + room_plus_1).to(tl.int32), tl.umulhi(left, zero + room_plus_1).to(tl.int32)
    flip, order = flip.to(tl.int64) < flip_below, tl.umulhi(order, zero + 6).to(tl.int32)
    w0, w1, w2, _ = tl.philox_impl(sample, epoch, stage, zero + 1, low, high)
    # unit(w) has 24 bits: exact in float32, and so in float64
    brightness = 1.0 + tl.load(widths) * (2.0 * unit(w0).to(tl.float64) - 1.0)
    contrast = 1.0 + tl.load(widths + 1) * (2.0 * unit(w1).to(tl.float64) - 1.0)
    saturation = 1.0 + tl.load(widths + 2) * (2.0 * unit(w2).to(tl.float64) - 1.0)
    w0, w1, w2, w3 = tl.philox_impl(sample, epoch, stage, zero + 2, low, high)
    std = tl.load(widths + 3).to(tl.float32)
    radius0 = std * tl.sqrt(-2.0 * tl.log(1.0 - unit(w0)))
    radius1 = std * tl.sqrt(-2.0 * tl.log(1.0 - unit(w2)))
    angle0, angle1 = 6.283185307179586 * unit(w1), 6.283185307179586 * unit(w3)
    light0, light1, light2 = radius0 * tl.cos(angle0), radius0 * tl.sin(angle0), radius1 * tl.cos(angle1)
    return top, left, flip, order, brightness, contrast, saturation, light0, light1, light2


@triton.jit
def mean_colour(image, row_share, column_share, SIDE: tl.constexpr, LINE: tl.constexpr, TALL: tl.constexpr):
    """Mean red, green, blue of the view, f64: each source pixel weighted by its share of it. LINE >= 3 SIDE."""
    k = tl.arange(0, LINE)
    y = tl.arange(0, TALL)
    known = k < 3 * SIDE
    sums = tl.zeros([TALL, LINE], tl.float32)
    for start in range(0, SIDE, TALL):  # SIDE and TALL are multiples of 8
        share = tl.load(row_share + start + y)
        at = (start + y)[:, None] * (3 * SIDE) + k[None, :]
        sums += share[:, None] * tl.load(image + at, mask=known[None, :], other=0).to(tl.float32)
    line = tl.sum(sums, 0) * tl.load(column_share + k // 3, mask=known, other=0.0)
    red = tl.sum(tl.where(k % 3 == 0, line, 0.0), 0)
    green = tl.sum(tl.where(k % 3 == 1, line, 0.0), 0)
    blue = tl.sum(tl.where(k % 3 == 2, line, 0.0), 0)
    return red.to(tl.float64), green.to(tl.float64), blue.to(tl.float64)


@triton.jit
def _blend(red, green, blue, factor, mix, constants):
    """One jitter step on a column of C | b: scaled, and for saturation (mix = 1 - factor, else 0) mixed with gray."""
    gray = tl.load(constants + 6) * red + tl.load(constants + 7) * green + tl.load(constants + 8) * blue
    return factor * red + mix * gray, factor * green + mix * gray, factor * blue + mix * gray, gray


@triton.jit
def _finish(c0, c1, c2, b, std):
    """A row of C | b, normalised, in float32."""
    return (c0 / std).to(tl.float32), (c1 / std).to(tl.float32), (c2 / std).to(tl.float32), (b / std).to(tl.float32)


@triton.jit
def compose(r, g, b, order, f0, f1, f2, light0, light1, light2, orders, constants):
    """colour.compose for one view of mean colour r, g, b. Returns C and b row by row, twelve f32."""
    one = 1.0 / 255.0 + 0.0 * r
    zero = 0.0 * r
    c00, c01, c02, c10, c11, c12, c20, c21, c22 = one, zero, zero, zero, one, zero, zero, zero, one
    b0, b1, b2 = zero, zero, zero
    for position in tl.static_range(3):
        kind = tl.load(orders + 3 * order + position)
        factor = tl.where(kind == 0, f0, tl.where(kind == 1, f1, f2))
        mix = tl.where(kind == 2, 1.0 - factor, 0.0)
        c00, c10, c20, gray0 = _blend(c00, c10, c20, factor, mix, constants)
        c01, c11, c21, gray1 = _blend(c01, c11, c21, factor, mix, constants)
        c02, c12, c22, gray2 = _blend(c02, c12, c22, factor, mix, constants)
        b0, b1, b2, gray3 = _blend(b0, b1, b2, factor, mix, constants)
        shift = tl.where(kind == 1, (1.0 - factor) * (gray0 * r + gray1 * g + gray2 * b + gray3), 0.0)
        b0, b1, b2 = b0 + shift, b1 + shift, b2 + shift
    at = constants + 9
    b0 += light0 * tl.load(at) + light1 * tl.load(at + 3) + light2 * tl.load(at + 6) - tl.load(constants)
    b1 += light0 * tl.load(at + 1) + light1 * tl.load(at + 4) + light2 * tl.load(at + 7) - tl.load(constants + 1)
    b2 += light0 * tl.load(at + 2) + light1 * tl.load(at + 5) + light2 * tl.load(at + 8) - tl.load(constants + 2)
    c00, c01, c02, b0 = _finish(c00, c01, c02, b0, tl.load(constants + 3))
    c10, c11, c12, b1 = _finish(c10, c11, c12, b1, tl.load(constants + 4))
    c20, c21, c22, b2 = _finish(c20, c21, c22, b2, tl.load(constants + 5))
    return c00, c01, c02, b0, c10, c11, c12, b1, c20, c21, c22, b2
