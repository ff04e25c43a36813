"""Pixels in memory to network input, the kernel alone: ours beside torchvision and kornia.

Mode A is the paper's first two stages (64 -> 256, crop 224), mode B those after size adaptation (crop 56). Every
contender gathers, crops, mirrors, jitters, lights and normalises; what one leaves undone is in its row. All take
turns in one process, with settings that suit the peers; beside them a plain fill of a buffer of the same size says
what the machine's memory can do (on a CPU, in mode B a batch of float32 is 5 MB and stays in a large cache).

A batch has 2048 images on a GPU and 128 on a CPU, unless --batch says otherwise.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fastres import views
from fastres.bench import harness
from fastres.bench.harness import Contender
from fastres.bench.peers import views as peer_views
from fastres.machine import facts
from fastres.machine.arguments import place
from fastres.machine.device import has_bf16
from fastres.machine.errors import UsageError
from fastres.schedules.types import ViewSettings
from fastres.views import TrainPlan
from fastres.views.geometry import Geometry

SIDE = 64
MODES = {"A: 64 to 256, crop 224": Geometry(SIDE, 4), "B: crop 56": Geometry(SIDE, 1)}


def main(argv: list[str]) -> int:
    """`python -m fastres.bench views`: measure in a process of its own, then print, --json, --record."""
    p = harness.options(__doc__, "views")
    p.add_argument("--dump", type=place, metavar="F.npz", help="images, drawn numbers, every implementation's output")
    p.add_argument("--seconds", type=float, default=0.4, help="length of one contender's turn")
    p.add_argument("--images", type=int, default=20_000, help="how many random images lie in memory")
    p.add_argument("--only", default="", help="contenders whose name has this in it, and the fill")
    p.add_argument("--result", type=place, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    harness.settle(args)
    if args.batch < 1 or args.rounds < 1 or args.images < 1:
        raise UsageError("--batch, --rounds and --images are 1 or more")
    if args.dump and not args.result:
        dump(args.dump, args.device)
        print(f"wrote {args.dump}")
    return harness.measured_apart("views", measure, args, argv)


def measure(args) -> dict:
    """All contenders of both modes in turns: {machine, rows, ratios, write_bandwidth_gb_per_s, skipped}."""
    device = args.device
    described = facts.machine(device)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (args.images, SIDE, SIDE, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).to(device)
    order = torch.from_numpy(rng.permutation(args.images)).to(device)
    rows, skipped, pools, bandwidths = [], [], [], {}
    for mode, geometry in MODES.items():
        makers = _contenders(mode, geometry, images, order, args, pools)
        wanted = [(name, make) for name, make in makers if args.only in name or name in args.only]
        contenders, left_out = harness.all_of(wanted)
        skipped += left_out
        contenders = [c for c in contenders if args.only in c.name]
        fill = _fill(geometry, args.batch, device)
        ran, failed = harness.take_turns([*contenders, fill], args.rounds, args.seconds, device)
        skipped += failed
        bandwidths[mode] = statistics.median(fill.rates) * fill.bytes_per_image
        rows += [harness.row(contender, bandwidths[mode]) for contender in ran if contender is not fill]
        for pool in pools:
            pool.close()
        pools.clear()
    return {
        "machine": described,
        "batch": args.batch,
        "rounds": args.rounds,
        "rows": rows,
        "ratios": harness.ratios(rows),
        "write_bandwidth_gb_per_s": {mode: round(rate / 1e9, 2) for mode, rate in bandwidths.items()},
        "skipped": list(dict.fromkeys(skipped)),
    }


def _contenders(mode: str, geometry: Geometry, images, order, args, pools: list) -> list:
    """(name, maker) of everything that may take part in this mode on this device."""
    size = 3 * 4 * geometry.crop**2

    def peer(name: str, note: str, make):
        def maker():
            work = make(images, geometry, args.batch)
            if isinstance(work, peer_views.PilPool):
                pools.append(work)
            return [Contender(mode, name, loop_over(work, order, args.batch), bytes_per_image=size, note=note)]

        return name, maker

    ours = ("fastres", lambda: _ours(mode, geometry, images, order, args))
    return [ours, *(peer(*row) for row in peer_views.PEERS)]


def _ours(mode: str, geometry: Geometry, images, order, args) -> list[Contender]:
    """Our implementations for the device, each in the number formats it is for."""
    fast, formats = "numba", [torch.float32, torch.bfloat16]
    if images.device.type == "cuda":
        fast, formats = "triton", [torch.float32, torch.bfloat16, torch.float16]
        formats = formats if has_bf16(images.device) else [torch.float32, torch.float16]
    found = []
    for impl, dtype in [*((fast, dtype) for dtype in formats), ("torch", torch.float32)]:
        settings = ViewSettings(impl=impl)
        plan = TrainPlan(geometry=geometry, settings=settings, seed=0, stage=0, epoch=1, dtype=dtype)
        size = 3 * geometry.crop**2 * dtype.itemsize
        name = str(dtype).removeprefix("torch.")
        loop = loop_over(into_one_buffer(images, plan), order, args.batch)
        found.append(Contender(mode, f"fastres {impl}", loop, True, name, size))
    return found


def into_one_buffer(images: torch.Tensor, plan: TrainPlan):
    """Rows i64 [B] to the plan's views of them, made in one buffer for each size of batch."""
    buffers = {}

    def work(rows: torch.Tensor) -> torch.Tensor:
        buffers[len(rows)] = views.apply(images, rows, rows, plan, out=buffers.get(len(rows)))
        return buffers[len(rows)]

    return work


def loop_over(work, order: torch.Tensor, batch: int):
    """A function that makes n batches, going round and round the images in a fixed random order."""
    batches, position = order.split(batch), 0

    def run(count: int) -> int:
        nonlocal position
        made = 0
        for _ in range(count):
            made += len(work(batches[position % len(batches)]))
            position += 1
        return made

    return run


def _fill(geometry: Geometry, batch: int, device: torch.device) -> Contender:
    """Write float32 of a batch's size, again and again into the same memory, by all cores."""
    buffer = torch.zeros(batch, geometry.crop, geometry.crop, 3, device=device)

    def run(count: int) -> int:
        for i in range(count):
            buffer.fill_(i)
        return count * batch

    return Contender("fill", "fill", run, bytes_per_image=buffer[0].numel() * 4)


def dump(path: Path, device: torch.device) -> None:
    """Eight images, their draws, and what each implementation makes of them, for a check from outside."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    images, rows = torch.from_numpy(pixels), torch.arange(8)
    content = {"images": pixels, "ids": rows.numpy(), "seed_stage_epoch": np.array([0, 0, 1])}
    impls = ["reference", "torch", *(["numba"] if device.type == "cpu" else ["triton"])]
    for mode, geometry in zip("AB", MODES.values()):
        plan = TrainPlan(geometry=geometry, settings=ViewSettings(), seed=0, stage=0, epoch=1)
        content |= {f"{mode}_{name}": value for name, value in plan.draws(rows.numpy()).__dict__.items()}
        fixed = views.twelve_views(geometry, ViewSettings())
        for impl in impls:
            dtypes = [torch.float64] if impl == "reference" else [torch.float32]
            dtypes += [torch.bfloat16] if impl in ("numba", "triton") else []
            for dtype in dtypes:
                made = replace(plan, settings=ViewSettings(impl=impl), dtype=dtype)
                twelve = replace(fixed, settings=ViewSettings(impl=impl), dtype=dtype)
                name = f"{impl}_{str(dtype).removeprefix('torch.')}"
                for kind, which, count in (("train", made, 8), ("twelve", twelve, 1)):
                    out = views.apply(
                        images[:count].to(device), rows[:count].to(device), rows[:count].to(device), which
                    )
                    out = out.float() if dtype == torch.bfloat16 else out
                    content[f"{mode}_{kind}_{name}"] = out.permute(0, 2, 3, 1).cpu().numpy()
    np.savez_compressed(path, **content)
