"""What resized crops, erasing, MixUp and CutMix cost: beside our own plain view, torchvision and kornia.

In each mode one of them is added to the views of `bench views`, for every image. Our plain view takes turns with the
rest, so that what the one thing more costs is a ratio of the same minutes. One mode more has photos that were packed at
twice the side, of which resized crops are made.
"""

import argparse

import numpy as np
import torch

from fastres.bench import harness
from fastres.bench.harness import Contender
from fastres.bench.peers import augmented as peers
from fastres.bench.views import MODES, SIDE, into_one_buffer, loop_over
from fastres.machine import facts
from fastres.machine.arguments import place
from fastres.machine.errors import UsageError
from fastres.schedules.types import ViewSettings
from fastres.views import TrainPlan
from fastres.views.geometry import Geometry

HALF_PIXEL = {"convention": "half-pixel"}
ADDED = {
    "resized crop": {"crop": "resized"},
    "erasing": {"erasing": 1.0},
    "MixUp": {"mixup": 0.2},
    "CutMix": {"cutmix": 1.0},
}
PLAIN = "fastres, plain"
LARGE = {"C: 128 to 64, crop 56": Geometry(128, 0.5)}


def main(argv: list[str]) -> int:
    """`python -m fastres.bench augmented`: measure in a process of its own, then print, --json, --record."""
    p = harness.options(__doc__, "augmented")
    p.add_argument("--seconds", type=float, default=0.4, help="length of one contender's turn")
    p.add_argument("--images", type=int, default=20_000, help="how many random images lie in memory")
    p.add_argument("--only", default="", help="what is added, by a part of its name")
    p.add_argument("--result", type=place, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    harness.settle(args)
    if args.batch < 2 or args.rounds < 1 or args.images < 2:
        raise UsageError("--batch and --images are 2 or more, --rounds 1 or more")
    if not any(args.only in name for name in ADDED):
        raise UsageError(f"--only {args.only!r}: expected a part of one of {', '.join(ADDED)}")
    return harness.measured_apart("augmented", measure, args, argv)


def measure(args) -> dict:
    """All contenders of all modes in turns: {machine, rows, ratios, skipped}."""
    described = facts.machine(args.device)
    rows, skipped, found = [], [], {}
    for modes, added in ((MODES, tuple(ADDED)), (LARGE, ("resized crop",))):
        chosen = [name for name in added if args.only in name]
        images, order = _photos(next(iter(modes.values())).side, args) if chosen else (None, None)
        for where, geometry in modes.items():
            for name in chosen:
                mode = f"{where}, {name}"
                contenders, left_out = harness.all_of(_contenders(mode, geometry, ADDED[name], images, order, args))
                ran, failed = harness.take_turns(contenders, args.rounds, args.seconds, args.device)
                skipped += left_out + failed
                made = [harness.row(contender) for contender in ran]
                rows += made
                found |= _ratios(made)
    return {
        "machine": described,
        "batch": args.batch,
        "rounds": args.rounds,
        "rows": rows,
        "ratios": found,
        "skipped": list(dict.fromkeys(skipped)),
    }


def _photos(side: int, args) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images u8 [N, side, side, 3], of larger ones as many fewer, and an order of them, i64 [N]."""
    rng, count = np.random.default_rng(0), max(2, args.images * SIDE**2 // side**2)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return tuple(torch.from_numpy(array).to(args.device) for array in (pixels, rng.permutation(count)))


def _contenders(mode: str, geometry: Geometry, settings: dict, images, order, args) -> list:
    """(name, maker): ours plain and with the one thing more, and the peers."""

    def ours(name: str, more: dict):
        def make() -> list[Contender]:
            plan = TrainPlan(geometry=geometry, settings=ViewSettings(**HALF_PIXEL, **more), seed=0, stage=0, epoch=1)
            loop = loop_over(into_one_buffer(images, plan), order, args.batch)
            return [Contender(mode, name, loop, True)]

        return name, make

    def peer(name: str, note: str, make):
        def maker() -> list[Contender]:
            work = make(images, geometry, ViewSettings(**HALF_PIXEL, **settings))
            return [Contender(mode, name, loop_over(work, order, args.batch), note=note)]

        return name, maker

    return [ours(PLAIN, {}), ours("fastres", settings), *(peer(*row) for row in peers.PEERS)]


def _ratios(rows: list[dict]) -> dict[str, float]:
    """Ours against the best peer that does the same, and against our own plain view."""
    found = harness.ratios([row for row in rows if row["name"] != PLAIN])
    rates = {row["name"]: row["img_per_s"] for row in rows}
    if {"fastres", PLAIN} <= rates.keys():
        found[f"{rows[0]['mode']}: fastres / {PLAIN}"] = round(rates["fastres"] / rates[PLAIN], 3)
    return found
