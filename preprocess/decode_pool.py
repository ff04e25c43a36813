"""Decodes every image once on all cores and yields the pixels in order, whatever the number of processes.

Processes, because Pillow holds the interpreter lock around small images: two threads decode 64 px JPEGs
no faster than one. Each worker is a fresh interpreter (this file, run as a command) that knows its chunks
from the start: worker w of n decodes chunks w, w + n, ... and writes them into a pipe, from which the
parent reads in turn. The pipe's size bounds what waits. When the parent dies, by whatever signal, the
next write fails and the worker ends.
"""

import contextlib
import fcntl
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from fastres.errors import DataError, MachineError
from preprocess.decode import Good, Recipe, decode_many
from preprocess.tiny_imagenet import Record
from preprocess.tree import Reader, Tree

CHUNK_BYTES = 1 << 20
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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


Decoded = tuple[list[Good | str], np.ndarray]


def decode_here(reader: Reader, chunks: list[list[Any]], recipe: Recipe) -> Iterator[Decoded]:
    """Each chunk's results and pixels, decoded in this process."""
    for locators in chunks:
        pixels = np.empty((len(locators), recipe.side, recipe.side, 3), np.uint8)
        yield decode_many(reader, locators, recipe, pixels), pixels


def decode_in_workers(reader: Reader, chunks: list[list[Any]], recipe: Recipe, workers: int) -> Iterator[Decoded]:
    """The same from `workers` processes."""
    command = [sys.executable, os.path.abspath(__file__)]
    processes: list[subprocess.Popen] = []
    try:
        for _ in range(workers):
            process = subprocess.Popen(  # a group of its own: the terminal interrupts the parent, which decides
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
            )
            processes.append(process)
            with contextlib.suppress(OSError):  # a user's allowance for pipes may be smaller
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
        for w, process in enumerate(processes):  # after all have started, since this waits for the worker's imports
            with contextlib.suppress(BrokenPipeError):  # it died at its start: said when its first chunk is missing
                pickle.dump((reader, chunks[w::workers], recipe), process.stdin)
                process.stdin.close()
        for c, locators in enumerate(chunks):
            pixels = np.empty((len(locators), recipe.side, recipe.side, 3), np.uint8)
            yield _receive(processes[c % workers], pixels)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _receive(process: subprocess.Popen, pixels: np.ndarray) -> Decoded:
    try:
        results = pickle.load(process.stdout)
        if isinstance(results, str):
            raise DataError(results)
        if process.stdout.readinto(pixels.reshape(-1)) < pixels.size:
            raise EOFError
    except (EOFError, pickle.UnpicklingError):
        code = process.wait()
        raise MachineError(
            f"a decoding process ended with code {code}, expected it to finish; see its last words above, "
            "free some memory or use fewer --workers"
        ) from None
    return results, pixels


def work() -> None:
    """A worker's life: read the job from stdin, write each chunk's results and pixels to stdout."""
    try:
        reader, chunks, recipe = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the parent died before it had said what to do
        return
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not print into the stream
    try:
        try:
            for results, pixels in decode_here(reader, chunks, recipe):
                pickle.dump(results, pipe)
                pipe.write(pixels.reshape(-1))
                pipe.flush()
        except DataError as error:
            pickle.dump(str(error), pipe)
            pipe.flush()
    except BrokenPipeError:  # the parent has left
        os._exit(0)  # without the flush at exit, which would fail again


if __name__ == "__main__":
    work()
