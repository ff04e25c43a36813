"""Decodes many images in processes of their own, in order, whatever their number.

Processes, because Pillow holds the interpreter lock around small images (two threads decode 64 px JPEGs no faster than
one), and because the warnings that tell of a cut TIFF are a process's, not a thread's. Each worker is a fresh
interpreter (this file, run as a command) that knows its chunks from the start: worker w of n decodes chunks w, w + n,
... and writes them into a pipe, from which the parent reads in turn. The pipe's size bounds what waits. When the parent
dies, by whatever signal, the next write fails and the worker ends.
"""

import contextlib
import fcntl
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fastres.data.decode import Recipe
from fastres.data.decode_chunk import Good, Reader, decode_many
from fastres.machine.errors import DataError, MachineError

CHUNK_BYTES = 1 << 20  # of pixels: what a pipe may hold


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
