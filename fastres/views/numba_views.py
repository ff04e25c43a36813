"""Views on the CPU: one fused pass over memory, every core, gathered by row inside the kernel.

Samples are dealt out in small ranges to as many threads as torch uses. The threads are Python's, around kernels
that release the interpreter lock, not Numba's `parallel=True`: its thread-safe layers need libraries that may not be
there, and the one that always is (workqueue) aborts the process when two threads use it at once, as the FFCV
loader's thread and this one would. So any number of threads may call in here.
"""

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fastres.machine.errors import UsageError
from fastres.views import colour, numba_chance, numba_colour, numba_copies, numba_kernels, tables
from fastres.views.numba_tables import chance_of, decisions, fixed_tables, memory, most_taps, test_tables
from fastres.views.plan import TestPlan, TrainPlan

DTYPES = (torch.float32, torch.bfloat16)
_NOTHING_ERASED = np.empty((0, 4), np.int64)
_NOTHING_MIXED = np.empty(0, np.int64), np.empty(0), np.empty((0, 4), np.int64)
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def train_views(
    images: torch.Tensor,
    rows: torch.Tensor,
    ids: torch.Tensor,
    plan: TrainPlan,
    out: torch.Tensor,
    own: torch.Tensor | None = None,
) -> None:
    """u8 [M, S, S, 3], i64 [B], i64 [B] -> into out, NHWC [B, H, H, channels] contiguous, float32 or bfloat16; own f32
    [B] receives each view's share of its own image."""
    geometry, resized = plan.geometry, plan.settings.crop == "resized"
    side, crop = geometry.side, geometry.crop
    pixels, rows, ids, target = images.numpy(), rows.numpy(), ids.numpy(), _flat(out)
    chance, fixed = chance_of(plan), fixed_tables(geometry, plan.convention)
    shares = tables.shares(side, geometry.resized, crop, plan.convention)
    constants = tables.CONSTANTS, colour.JITTER_ORDERS
    taps = most_taps(geometry) if resized else 0
    kept = np.empty(len(rows), np.float32) if own is None else own.numpy()
    kept[:] = 1

    def work(start: int, stop: int) -> int:
        part, names, mine = rows[start:stop], ids[start:stop], memory(side, crop, crop, plan.channels)
        d = decisions(stop - start, crop, taps)
        numba_chance.draw_range(names, *chance.every, d.places, d.reals)
        if resized:
            numba_chance.draw_boxes(names, *chance.boxes, mine.sides, d.boxes)
            given = pixels, part, d.places, d.reals, d.boxes, *constants, mine.decide, d.tables, d.affines
            bad = numba_colour.decide_boxes(*given)
        else:
            bad = numba_colour.decide(pixels, part, d.places, d.reals, shares, *constants, mine.decide, d.affines)
        if bad:
            return bad
        erased, mixtures = _NOTHING_ERASED, _NOTHING_MIXED
        if chance.erased:
            numba_chance.draw_erased(names, *chance.erased, mine.sides, erased := d.erased)
        if chance.mixtures:
            numba_chance.draw_mixtures(names, *chance.mixtures, *(mixtures := d.mixtures))
            kept[start : start + 2 * len(mixtures[1])] = mixtures[1].repeat(2)
        decided = pixels, part, d.places, d.affines
        if resized or geometry.resized != side:
            made, to = 2 * len(mixtures[0]), target[start:stop]  # all of them but the last of an odd batch, if any
            resample = d.tables if resized else fixed, erased
            if made:
                numba_kernels.mixed_range(*decided, *resample, mixtures, mine.resample, to)
            if made < stop - start:
                rest = (array[made:] for array in decided[1:])
                resample = tuple(a[made:] for a in d.tables) if resized else fixed, erased[made:]
                numba_kernels.train_range(pixels, *rest, *resample, mine.resample, to[made:])
        else:
            numba_copies.copy_range(*decided, erased, mixtures, mine.copy, mine.pair, target[start:stop])
        return 0

    _deal(work, len(rows), len(images))


def test_views(images: torch.Tensor, rows: torch.Tensor, plan: TestPlan, out: torch.Tensor) -> None:
    """u8 [M, S, S, 3], i64 [B] -> into out, NHWC [B * V, H, H, channels] contiguous, image by image."""
    side, crop, count = plan.geometry.side, plan.geometry.crop, len(plan.views)
    pixels, rows, target = images.numpy(), rows.numpy(), _flat(out)
    copies, groups, views, bands, width = test_tables(plan.geometry, plan.convention, plan.views)
    c, b = colour.plain()
    affine = np.concatenate([c, b[:, None]], axis=1).astype(np.float32)

    def work(start: int, stop: int) -> int:
        own, part, bad = memory(side, crop, width, plan.channels), rows[start:stop], 0
        to = target[start * count : stop * count]
        if len(copies):
            bad = numba_copies.copy_test_range(pixels, part, copies, count, affine, own.copy, to)
        if len(groups) and not bad:
            bad = numba_kernels.test_range(pixels, part, groups, views, count, bands, affine, own.resample, to)
        return bad

    _deal(work, len(rows), len(images))


def _deal(work, count: int, known: int) -> None:
    """Call work(start, stop) for ranges that cover `count` samples, on torch.get_num_threads() threads. Ranges start
    at even samples: the two of a pair are not parted."""
    threads = min(torch.get_num_threads(), count)
    size = max(8, -(-count // (4 * max(threads, 1))))
    size += size % 2
    ranges = itertools.count()  # next() on it is atomic: whoever is free takes the next range

    def worker() -> int:
        bad = 0
        while (start := next(ranges) * size) < count:
            bad += work(start, min(start + size, count))
        return bad

    helpers = [_threads().submit(worker) for _ in range(min(threads, -(-count // size)) - 1)]
    try:
        bad = worker()
    finally:
        bad_elsewhere = sum(helper.result() for helper in helpers)
    if bad + bad_elsewhere:
        raise IndexError(f"{bad + bad_elsewhere} of {count} rows are outside the {known} images")


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="views")
        return _pool


def _after_fork() -> None:
    """A forked child has none of its parent's threads: start anew there."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _flat(out: torch.Tensor) -> np.ndarray:
    """NHWC [n, H, W, channels] as f32 or, for bfloat16, u16 [n, H, W * channels], the same memory."""
    if out.dtype not in DTYPES:
        raise UsageError(f"views.impl numba makes float32 and bfloat16, not {out.dtype}: use --set views.impl=torch")
    bits = out.view(torch.uint16) if out.dtype == torch.bfloat16 else out
    return bits.numpy().reshape(len(out), out.shape[1], -1)
