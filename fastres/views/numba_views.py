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
from functools import lru_cache

import numpy as np
import torch

from fastres.errors import UsageError
from fastres.views import colour, numba_chance, numba_kernels, tables
from fastres.views.draw import WORD
from fastres.views.plan import TestPlan, TrainPlan

DTYPES = (torch.float32, torch.bfloat16)
_local = threading.local()  # scratch memory: every thread keeps its own
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def train_views(images: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, plan: TrainPlan, out: torch.Tensor):
    """u8 [M, S, S, 3], i64 [B], i64 [B] -> into out, NHWC [B, H, H, channels] contiguous, float32 or bfloat16."""
    side, crop = plan.geometry.side, plan.geometry.crop
    pixels, rows, ids, target = images.numpy(), rows.numpy(), ids.numpy(), _flat(out)
    table = tables.band(side, plan.geometry.resized, plan.convention)
    shares = tables.shares(side, plan.geometry.resized, crop, plan.convention)
    chance = _keys(plan), _widths(plan)

    def work(start: int, stop: int) -> int:
        scratch = _scratch(side, crop, plan.channels)
        decided = _decisions(stop - start)
        part = rows[start:stop]
        bad = numba_chance.decide_range(
            pixels, part, ids[start:stop], chance, shares, tables.CONSTANTS, colour.JITTER_ORDERS, scratch[0], *decided
        )
        if not bad:
            numba_kernels.train_range(pixels, part, *decided, table, scratch[1], target[start:stop])
        return bad

    _deal(work, len(rows), len(images))


def test_views(images: torch.Tensor, rows: torch.Tensor, plan: TestPlan, out: torch.Tensor) -> None:
    """u8 [M, S, S, 3], i64 [B] -> into out, NHWC [B * V, H, H, channels] contiguous, image by image."""
    side, count = plan.geometry.side, len(plan.views)
    pixels, rows, target = images.numpy(), rows.numpy(), _flat(out)
    groups, views, bands, width = _test_tables(plan.geometry, plan.convention, plan.views)
    c, b = colour.plain()
    affine = np.concatenate([c, b[:, None]], axis=1).astype(np.float32)

    def work(start: int, stop: int) -> int:
        scratch = _scratch(side, width, plan.channels)[1]
        part = target[start * count : stop * count]
        return numba_kernels.test_range(pixels, rows[start:stop], groups, views, bands, affine, scratch, part)

    _deal(work, len(rows), len(images))


def _deal(work, count: int, known: int) -> None:
    """Call work(start, stop) for ranges that cover `count` samples, on torch.get_num_threads() threads."""
    threads = min(torch.get_num_threads(), count)
    size = max(8, -(-count // (4 * max(threads, 1))))
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


def _keys(plan: TrainPlan) -> np.ndarray:
    seed_low, seed_high = plan.seed % WORD, plan.seed // WORD % WORD
    flip_below = int(plan.settings.flip * WORD)
    return np.array([seed_low, seed_high, plan.epoch, plan.stage, plan.geometry.room + 1, flip_below], np.uint64)


def _widths(plan: TrainPlan) -> np.ndarray:
    settings = plan.settings
    return np.array([settings.brightness, settings.contrast, settings.saturation, settings.lighting])


@lru_cache(maxsize=16)
def _test_tables(geometry, convention: str, test_views: tuple) -> tuple:
    """What numba_kernels.test_range asks for, and the widest group: views that share a horizontal pass are a group."""
    side, size, crop = geometry.side, geometry.resized, geometry.crop
    keys = sorted({(view.whole, view.mirrored) for view in test_views})
    places = [(0, 0) if view.whole else view.offset(geometry) for view in test_views]
    groups = []
    for whole, mirrored in keys:
        of_group = [(view.whole, view.mirrored) == (whole, mirrored) for view in test_views]
        lefts = [left for (_, left), member in zip(places, of_group) if member]
        copied = not whole and geometry.upscale == 1
        groups.append((whole, mirrored, min(lefts), 0 if copied else max(lefts) + crop - min(lefts)))
    views = []
    for view, (top, left) in zip(test_views, places):
        group = keys.index((view.whole, view.mirrored))
        _, mirrored, low, width = groups[group]
        views.append((group, top, left, low + width - left - crop if mirrored else left - low))
    enlarged, whole = tables.band(side, size, convention), tables.band(side, crop, convention)
    taps = max(enlarged[1].shape[1], whole[1].shape[1])
    if taps > 1:  # one array for both: the enlarged table is not read where nothing is enlarged
        enlarged = tables.band(side, size, convention, taps) if geometry.upscale > 1 else whole
        whole = tables.band(side, crop, convention, taps)
    firsts, weights = np.zeros((2, size), np.int64), np.zeros((2, size, taps), np.float32)
    for i, (first, weight) in enumerate((enlarged, whole)):
        firsts[i, : len(first)], weights[i, : len(first)] = first, weight
    widest = max(group[3] for group in groups)
    return np.array(groups, np.int64), np.array(views, np.int64), (firsts, weights), max(widest, crop)


def _scratch(side: int, width: int, channels: int) -> tuple:
    """This thread's working memory, made once per geometry: what decide_range and train_range call scratch."""
    memory = _local.__dict__
    key = side, width, channels
    if key not in memory:
        decide = np.empty(3 * side, np.float32), np.empty(3), np.empty(6), np.empty((3, 4))
        shapes = (3, side), (side, 3 * side), (numba_kernels.TURNED_COLUMNS, 3 * side), (side, channels * width)
        partial = np.empty(max(3 * side, channels * width), np.float32)
        memory[key] = decide, (*(torch.zeros(shape).numpy() for shape in shapes), partial)  # aligned to 64 bytes
    return memory[key]


def _decisions(count: int) -> tuple[np.ndarray, np.ndarray]:
    """This thread's room for the decisions on a range of samples: places i64 [n, 4], affines f32 [n, 3, 4]."""
    kept = _local.__dict__.get("decisions")
    if kept is None or len(kept[0]) < count:
        kept = _local.decisions = np.empty((count, 4), np.int64), np.empty((count, 3, 4), np.float32)
    return kept
