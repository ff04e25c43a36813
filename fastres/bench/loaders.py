"""Packed file to batches ready for the network: one warm epoch of ours on each engine, beside what others offer.

Every contender delivers shuffled, augmented, normalised channels-last batches and their labels, and keeps the last,
smaller batch. Its first epoch (compilation, page cache) is not counted. `--digest` instead reads one epoch through
one engine, in a fixed order, and ends with a digest over ids, labels and pixels that is the same for every engine.
A batch has 2048 images on a GPU and 128 on a CPU, unless --batch says otherwise.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fastres import views
from fastres.bench import harness
from fastres.bench.harness import Contender
from fastres.bench.peers import loaders as peer_loaders
from fastres.data.engines import ENGINES, open_split, packed_for
from fastres.data.manifest import Manifest, load_manifest
from fastres.machine import facts
from fastres.machine.arguments import place
from fastres.machine.device import has_bf16
from fastres.machine.errors import MachineError, UsageError
from fastres.schedules.types import ViewSettings
from fastres.views.draw import epoch_order
from fastres.views.geometry import Geometry

MODES = {"A: upscaled by 4": 4, "B: not upscaled": 1}


def main(argv: list[str]) -> int:
    """`python -m fastres.bench loaders`: measure in a process of its own, then print, --json, --record; or --digest."""
    p = harness.options(__doc__, "loaders")
    p.add_argument("--data", type=place, default=Path("packed"), help="the packed folder (default: packed)")
    p.add_argument("--split", default="train")
    p.add_argument("--engine", help=f"ours, of {', '.join(ENGINES)} (default: all that are packed)")
    p.add_argument("--tree", type=place, help="its JPEGs; without it peers that want files get them encoded anew")
    p.add_argument("--digest", action="store_true", help="one epoch through one engine, and what it delivered")
    p.add_argument("--only", default="", help="peers whose name has this in it; `none`: only ours")
    p.add_argument("--result", type=place, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    for engine in args.engine.split(",") if args.engine else ():
        if engine not in ENGINES:
            raise UsageError(f"--engine {engine}: unknown here, expected one of {', '.join(ENGINES)}")
    harness.settle(args)
    if args.batch < 1 or args.rounds < 1:
        raise UsageError("--batch and --rounds are 1 or more")
    packed = packed_for(load_manifest(args.data), args.split)  # a wrong folder is said here, by this process
    args.engine = args.engine.split(",") if args.engine else packed
    if args.digest:
        return digest(args)
    return harness.measured_apart("loaders", measure, args, argv)


def digest(args) -> int:
    """Read one epoch in epoch_order and hash what comes: img/s and N, then the digest as the last line."""
    if len(args.engine) != 1:
        raise UsageError("--digest reads through one engine: name it with --engine")
    data = open_split(args.engine[0], args.data, load_manifest(args.data), args.split, args.device)
    delivered, count, waited, start = [], 0, 0.0, time.perf_counter()
    for batch in data.batches(epoch_order(len(data), seed=0, stage=0, epoch=1), args.batch):
        pixels = batch.images[batch.rows].cpu()
        waited += time.perf_counter() - start
        delivered.append((batch.ids.cpu().numpy(), batch.labels.cpu().numpy(), pixels.numpy()))
        count += len(batch.ids)
        start = time.perf_counter()
    print(f"{args.engine[0]}: {count / waited:,.0f} img/s, N = {count}")
    print(digest_of([np.concatenate(parts) for parts in zip(*delivered)]))
    return 0


def digest_of(arrays: list[np.ndarray]) -> str:
    """sha256 over ids i64 [N], labels i64 [N] and pixels u8 [N, S, S, 3], one after the other, in delivery order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def measure(args) -> dict:
    """All contenders of both modes, epochs in turns: {machine, rows, ratios, skipped}."""
    manifest = load_manifest(args.data)
    described = facts.machine(args.device)
    rows, skipped = [], []
    with TemporaryDirectory() as scratch:
        source = peer_loaders.Source.of(args.data, manifest, args.split, args.tree, Path(scratch))
        for mode, upscale in MODES.items():
            geometry = Geometry(manifest.side, upscale)
            makers = [(name, partial(_ours, mode, name, geometry, manifest, args)) for name in args.engine]
            makers += [
                (name, partial(_peer, mode, name, note, make, source, geometry, args))
                for name, note, make in peer_loaders.PEERS
                if args.only in name
            ]
            contenders, left_out = harness.all_of(makers)
            ran, failed = harness.take_turns(contenders, args.rounds, 0.0, args.device)
            skipped += [*left_out, *failed]
            rows += [harness.row(contender) for contender in ran]
    return {
        "machine": described,
        "batch": args.batch,
        "rounds": args.rounds,
        "rows": rows,
        "ratios": harness.ratios(rows),
        "images": manifest.count(args.split),
        "side": manifest.side,
        "skipped": list(dict.fromkeys(skipped)),
    }


def _ours(mode: str, engine: str, geometry: Geometry, manifest: Manifest, args) -> list[Contender]:
    """One engine with the views kernel behind it, in float32 and, where the hardware has it, bfloat16."""
    data = open_split(engine, args.data, manifest, args.split, args.device)

    def epochs(dtype: torch.dtype, buffers: dict, count: int) -> int:
        made = 0
        for epoch in range(1, count + 1):
            plan = views.TrainPlan(
                geometry=geometry, settings=ViewSettings(), seed=0, stage=0, epoch=epoch, dtype=dtype
            )
            for batch in data.batches(epoch_order(len(data), seed=0, stage=0, epoch=epoch), args.batch):
                n = len(batch.ids)
                buffers[n] = views.apply(batch.images, batch.rows, batch.ids, plan, out=buffers.get(n))
                made += n
        return made

    dtypes = [torch.float32, *([torch.bfloat16] if has_bf16(args.device) else [])]
    return [
        Contender(
            mode,
            f"fastres {engine}",
            partial(epochs, dtype, {}),
            True,
            str(dtype).removeprefix("torch."),
            3 * geometry.crop**2 * dtype.itemsize,
        )
        for dtype in dtypes
    ]


def _peer(mode: str, name: str, note: str, make, source, geometry: Geometry, args) -> list[Contender]:
    """`make` returns a function that starts an epoch: an iterator of (x, labels)."""
    start_epoch: Callable[[], Iterator] = make(source, geometry, args.batch, args.device)

    def epochs(count: int) -> int:
        made = 0
        for _ in range(count):
            for x, labels in start_epoch():
                made += len(x)
                if len(x) != len(labels) or x.shape[-1] != geometry.crop:
                    raise MachineError(f"{name} delivered {tuple(x.shape)} with {len(labels)} labels")
        if made != count * len(source.labels):
            raise MachineError(f"{name} delivered {made} images, expected {count * len(source.labels)}")
        return made

    return [Contender(mode, name, epochs, bytes_per_image=12 * geometry.crop**2, note=note)]
