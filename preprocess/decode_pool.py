"""Every image of a data set, decoded once on all cores, its pixels in order: fastres/data/decode_pool.py does it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastres.data.decode import Recipe
from fastres.data.decode_chunk import Good
from fastres.data.decode_pool import CHUNK_BYTES, cores, decode_here, decode_in_workers
from preprocess.sources.records import Record
from preprocess.sources.tree import Tree

CHUNKS_AHEAD = 200  # at most 300 MB wait for the writers, whose libraries take seconds to load
WORTH_A_WORKER = 2_000  # images; an interpreter starts in the time that it takes to decode so many


@dataclass
class Chunk:
    """Some images of one split, in order. bad: (path, reason) of those left out of the other fields."""

    split: str
    records: list[Record]
    pixels: np.ndarray  # u8 [n, S, S, 3]
    known: list[Good]
    bad: list[tuple[str, str]]


def decode_all(tree: Tree, splits: dict[str, list[Record]], recipe: Recipe, workers: int | None) -> Iterator[Chunk]:
    """Every record of every split, in order. workers: None for as many as the cores and the work justify."""
    step = max(1, CHUNK_BYTES // (3 * recipe.side**2))
    parts = [(s, records[i : i + step]) for s, records in splits.items() for i in range(0, len(records), step)]
    locators = [[tree.locator(r.path) for r in records] for _, records in parts]
    total = sum(len(records) for records in splits.values())
    n = min(workers or min(cores(), total // WORTH_A_WORKER + 1), len(parts))
    job = (tree.reader, locators, recipe)
    decoded = decode_here(*job) if n == 1 else decode_in_workers(*job, n)
    with contextlib.closing(decoded):
        for (split, records), (results, pixels) in zip(parts, decoded, strict=True):
            good = [i for i, r in enumerate(results) if not isinstance(r, str)]
            yield Chunk(
                split=split,
                records=[records[i] for i in good],
                pixels=pixels if len(good) == len(records) else pixels[good],
                known=[results[i] for i in good],
                bad=[(records[i].path, r) for i, r in enumerate(results) if isinstance(r, str)],
            )
