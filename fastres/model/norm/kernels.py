"""Triton kernels of a training BatchNorm with add and ReLU. x is read as rows of channels: NHWC memory as [M, C].

A tile is SLOTS rows of WIDE channels. A reduction over rows has two stages. In the first, each program walks its share
of the rows, every slot of its tile keeps a sum of its own, and one row of partial results is written; in the second,
one program adds up the rows of a few channels. No atomics: the order of adding depends on the sizes alone.

The variance is Welford's. Every slot moves its mean by the distance of each value and gathers the squares around the
moving mean; slots, and then shares, are joined by their counts and the squares of their means' distances. Nothing large
is subtracted from anything large, so a channel whose mean is a thousand times its spread loses nothing (sum of squares
less square of sum, in float32, loses it all), and no channel needs a shift that one must guess.

All sums are float32. Only the address of a tile's first row is counted in 64 bits. Nothing here has run on a GPU yet.
"""

import triton
import triton.language as tl


@triton.jit
def _columns(channels, WIDE: tl.constexpr):
    """The program's channels, and which of them there are."""
    column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    return column, column < channels


@triton.jit
def _scale(weight, inverse, column, known):
    return tl.load(weight + column, mask=known, other=0.0) * tl.load(inverse + column, mask=known, other=0.0)


@triton.jit
def _unless_cut(gradient, y):
    """The gradient behind a ReLU whose output is y: as torch's, NaN lets it through."""
    return tl.where(y.to(tl.float32) <= 0.0, 0.0, gradient)


@triton.jit(do_not_specialize=["rows", "share"])
def moments_kernel(x, partial, rows, channels, share, SLOTS: tl.constexpr, WIDE: tl.constexpr):
    """Mean and sum of squared distances from it, of each share of rows: into f32 [2, shares, C]."""
    column, known = _columns(channels, WIDE)
    slot = tl.arange(0, SLOTS)
    inner = slot[:, None] * channels + column[None, :]
    begin = tl.program_id(0).to(tl.int64) * share
    end = tl.minimum(begin + share, rows)
    mean = tl.zeros([SLOTS, WIDE], tl.float32)
    squares = tl.zeros([SLOTS, WIDE], tl.float32)
    seen = 0.0
    for row in range(begin, end, SLOTS):
        seen += 1.0
        there = (row + slot < end)[:, None] & known[None, :]
        value = tl.load(x + row * channels + inner, mask=there, other=0.0).to(tl.float32)
        away = tl.where(there, value - mean, 0.0)
        mean += away * (1.0 / seen)
        squares += away * (value - mean)
    count = ((end - begin - slot + SLOTS - 1) // SLOTS).to(tl.float32)[:, None]  # rows that the slot saw
    whole = tl.sum(count * mean, 0) / (end - begin).to(tl.float32)
    away = mean - whole[None, :]
    to = partial + tl.program_id(0) * channels + column
    tl.store(to, whole, mask=known)
    tl.store(to + tl.num_programs(0) * channels, tl.sum(squares + count * away * away, 0), mask=known)


@triton.jit(do_not_specialize=["rows", "share", "shares"])
def statistics_kernel(
    partial,
    mean_out,
    inverse_out,
    running_mean,
    running_var,
    rows,
    channels,
    share,
    shares,
    eps,
    momentum,
    SLOTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Joins the shares (at most SLOTS): mean and 1 / sqrt(var + eps), f32 [C]; moves the running statistics."""
    column, known = _columns(channels, WIDE)
    slot = tl.arange(0, SLOTS)
    there = (slot < shares)[:, None] & known[None, :]
    at = partial + slot[:, None] * channels + column[None, :]
    count = tl.where(slot < shares, tl.minimum(share, rows - slot * share), 0).to(tl.float32)[:, None]
    means = tl.load(at, mask=there, other=0.0)
    squares = tl.load(at + shares * channels, mask=there, other=0.0)
    total = rows.to(tl.float32)
    mean = tl.sum(count * means, 0) / total
    away = tl.where(there, means - mean[None, :], 0.0)
    square = tl.sum(squares + count * away * away, 0)
    tl.store(mean_out + column, mean, mask=known)
    tl.store(inverse_out + column, 1.0 / tl.sqrt_rn(square / total + eps), mask=known)
    old = tl.load(running_mean + column, mask=known)
    tl.store(running_mean + column, (1.0 - momentum) * old + momentum * mean, mask=known)
    old = tl.load(running_var + column, mask=known)
    tl.store(running_var + column, (1.0 - momentum) * old + momentum * (square / (total - 1.0)), mask=known)


@triton.jit(do_not_specialize=["rows"])
def normalise_kernel(
    x,
    add,
    y,
    weight,
    bias,
    mean,
    inverse,
    rows,
    channels,
    ADD: tl.constexpr,
    RELU: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """y = relu?((x - mean) g / s + b + add?), a tile a program; rounded once, to y's dtype."""
    column, known = _columns(channels, WIDE)
    slot, first = tl.arange(0, SLOTS), tl.program_id(0).to(tl.int64) * SLOTS
    there = (first + slot < rows)[:, None] & known[None, :]
    at = first * channels
    inner = slot[:, None] * channels + column[None, :]
    away = tl.load(x + at + inner, mask=there, other=0.0).to(tl.float32)
    away -= tl.load(mean + column, mask=known, other=0.0)[None, :]
    scale, shift = _scale(weight, inverse, column, known), tl.load(bias + column, mask=known, other=0.0)
    out = tl.fma(away, scale[None, :], shift[None, :])
    if ADD:
        out += tl.load(add + at + inner, mask=there, other=0.0).to(tl.float32)
    if RELU:
        out = tl.where(out < 0.0, 0.0, out)  # a NaN stays
    tl.store(y + at + inner, out.to(y.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["rows", "share"])
def gradient_sums_kernel(
    dy,
    x,
    y,
    masked,
    partial,
    weight,
    bias,
    mean,
    inverse,
    rows,
    channels,
    share,
    CUT: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """sum(dy') and sum(dy' x^) of each share of rows: into f32 [2, shares, C].

    CUT  what of dy is cut by a ReLU: "" nothing; "x" where x gives no positive output, which is computed anew, bit for
         bit as normalise_kernel does; "y" where y is not positive: dy' is then written to `masked`, the gradient of
         what was added
    """
    column, known = _columns(channels, WIDE)
    slot = tl.arange(0, SLOTS)
    inner = slot[:, None] * channels + column[None, :]
    begin = tl.program_id(0).to(tl.int64) * share
    end = tl.minimum(begin + share, rows)
    middle = tl.load(mean + column, mask=known, other=0.0)[None, :]
    scale, shift = _scale(weight, inverse, column, known), tl.load(bias + column, mask=known, other=0.0)
    plain = tl.zeros([SLOTS, WIDE], tl.float32)
    along = tl.zeros([SLOTS, WIDE], tl.float32)
    for row in range(begin, end, SLOTS):
        there = (row + slot < end)[:, None] & known[None, :]
        at = row * channels
        gradient = tl.load(dy + at + inner, mask=there, other=0.0).to(tl.float32)
        away = tl.load(x + at + inner, mask=there, other=0.0).to(tl.float32) - middle
        if CUT == "x":
            gradient = _unless_cut(gradient, tl.fma(away, scale[None, :], shift[None, :]).to(x.dtype.element_ty))
        if CUT == "y":
            gradient = _unless_cut(gradient, tl.load(y + at + inner, mask=there, other=0.0))
            tl.store(masked + at + inner, gradient.to(masked.dtype.element_ty), mask=there)
        plain += gradient
        along += gradient * away
    to = partial + tl.program_id(0) * channels + column
    tl.store(to, tl.sum(plain, 0), mask=known)
    spread = tl.load(inverse + column, mask=known, other=0.0)
    tl.store(to + tl.num_programs(0) * channels, tl.sum(along, 0) * spread, mask=known)


@triton.jit(do_not_specialize=["shares"])
def join_kernel(partial, db, dg, channels, shares, SLOTS: tl.constexpr, WIDE: tl.constexpr):
    """Adds up the shares (at most SLOTS): the gradients of bias and weight, f32 [C]."""
    column, known = _columns(channels, WIDE)
    slot = tl.arange(0, SLOTS)
    there = (slot < shares)[:, None] & known[None, :]
    at = partial + slot[:, None] * channels + column[None, :]
    tl.store(db + column, tl.sum(tl.load(at, mask=there, other=0.0), 0), mask=known)
    tl.store(dg + column, tl.sum(tl.load(at + shares * channels, mask=there, other=0.0), 0), mask=known)


@triton.jit(do_not_specialize=["rows"])
def input_gradient_kernel(
    dy,
    x,
    dx,
    weight,
    bias,
    mean,
    inverse,
    db,
    dg,
    rows,
    channels,
    CUT: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """dx = g / s (dy' - db / M - x^ dg / M), a tile a program. CUT "x": dy' is made of dy; else dy is dy'."""
    column, known = _columns(channels, WIDE)
    slot, first = tl.arange(0, SLOTS), tl.program_id(0).to(tl.int64) * SLOTS
    there = (first + slot < rows)[:, None] & known[None, :]
    at = first * channels
    inner = slot[:, None] * channels + column[None, :]
    gradient = tl.load(dy + at + inner, mask=there, other=0.0).to(tl.float32)
    away = tl.load(x + at + inner, mask=there, other=0.0).to(tl.float32)
    away -= tl.load(mean + column, mask=known, other=0.0)[None, :]
    scale = _scale(weight, inverse, column, known)[None, :]
    if CUT == "x":
        shift = tl.load(bias + column, mask=known, other=0.0)[None, :]
        gradient = _unless_cut(gradient, tl.fma(away, scale, shift).to(x.dtype.element_ty))
    total = rows.to(tl.float32)
    even = tl.load(db + column, mask=known, other=0.0) / total
    tilt = tl.load(dg + column, mask=known, other=0.0) * tl.load(inverse + column, mask=known, other=0.0) / total
    out = scale * (gradient - even[None, :] - away * tilt[None, :])
    tl.store(dx + at + inner, out.to(dx.dtype.element_ty), mask=there)
