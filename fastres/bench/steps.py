"""One optimiser step of every kind of stage: ours beside the loops others write, in one run.

All are fed from memory on the device, so that no loader counts. Peers get finished network input; ours makes its
views inside the step, which is more work. Sizes are Tiny ImageNet's on a GPU and the demo's on a CPU, unless asked
otherwise; weights are fresh, which costs the same as trained ones.
"""

import contextlib
import itertools
import statistics

import torch
from torch.profiler import ProfilerActivity, profile

from fastres import views
from fastres.bench import harness, output, step_floor
from fastres.bench.harness import Contender
from fastres.bench.peers import steps as peer_steps
from fastres.data.batch import Batch
from fastres.machine import facts
from fastres.machine.device import CHOICES, Precision, choose_device, choose_precision
from fastres.machine.errors import MachineError, UsageError
from fastres.model.network import Architecture, build
from fastres.schedules.types import Schedule, Stage, ViewSettings
from fastres.stage.stage_step import STEPS, check_step, stage_step
from fastres.views.geometry import Geometry

BATCHES = 4  # distinct batches in memory, taken in turn
CLASSES = 200
PROFILED_STEPS = 10


def main(argv: list[str]) -> int:
    """`python -m fastres.bench steps`: measure, then print, --json, --record."""
    p = harness.options(__doc__, "steps", batch=_sizes)
    p.set_defaults(batch=None)
    p.add_argument("--arch", default="resnet18")
    p.add_argument("--width", type=int, help="default: 64 on a GPU, 16 on a CPU")
    p.add_argument("--side", type=int, help="source pixels a side; default: 64 on a GPU, 32 on a CPU")
    p.add_argument(
        "--precision",
        type=lambda text: text.split(","),
        default=["auto"],
        metavar="P,...",
        help=f"of {', '.join(CHOICES)}; several: each with every --batch, which may be several too",
    )
    p.add_argument("--stages", default="fc,conv1,full,full-small", help="which kinds, comma-separated")
    p.add_argument(
        "--compiled", action="store_true", help="also compiled ones (on a GPU always at the first precision and batch)"
    )
    p.add_argument("--peers", default="", help="only peers whose name has this in it")
    p.add_argument("--seconds", type=float, default=1.0, help="length of one contender's turn")
    p.add_argument(
        "--profile",
        action="store_true",
        help="also torch.profiler's table of each of ours and its best peer, on screen or as profile.txt in the record",
    )
    args = p.parse_args(argv)
    for what, names, known in (("--precision", args.precision, CHOICES), ("--stages", args.stages.split(","), KINDS)):
        for name in names:
            if name not in known:
                raise UsageError(f"{what} {name}: unknown, expected some of {', '.join(known)}")
    # In this process, without the malloc settings that suit loaders: backward runs in a thread of its own, whose arena
    # cannot hold their 200 MB of padding, and every buffer is then mapped anew (20 img/s instead of hundreds, for all).
    result, tables = measure(args)
    output.publish("steps", result, argv, args, {"profile.txt": tables})
    harness.check_ours_ran(result["skipped"])
    return 0


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


KINDS = {  # --stages: a row of each kind of stage, and the stem it trains behind
    "fc": (Stage(name="fc", epochs=1, train=("fc.*",), upscale=4), "7x7"),
    "conv1": (Stage(name="conv1", epochs=1, train=("conv1.*",), upscale=1), "3x3"),
    "full": (Stage(name="full", epochs=1, train=("*",), upscale=4), "7x7"),
    "full-small": (Stage(name="full-small", epochs=1, train=("*",), upscale=1), "3x3"),
}


def measure(args) -> tuple[dict, str]:
    """{machine, rows, ratios, ...}: every kind of stage, precision and batch in turn, all its contenders taking turns.
    And --profile's text."""
    device = choose_device(args.device)
    on_gpu = device.type == "cuda"
    width, side = args.width or (64 if on_gpu else 16), args.side or (64 if on_gpu else 32)
    described = facts.machine(device)
    rows, skipped, shares, tables, floors = [], [], {}, [], {}
    batches = args.batch or [256 if on_gpu else 32]
    for kind, name, batch in itertools.product(args.stages.split(","), args.precision, batches):
        precision = choose_precision(name, device)
        stage, stem = KINDS[kind]
        architecture = Architecture(args.arch, width, CLASSES, stem)
        geometry = Geometry(side, stage.upscale)
        mode = f"{kind}, crop {geometry.crop}, batch {batch}, {precision.name}"
        floors[mode] = step_floor.images_per_second(stage, architecture, side, precision.name, described["gpu"])
        data = _Data(geometry, batch, precision)
        # a GPU's peers are compiled too, once: tens of seconds each
        compiled = args.compiled or (on_gpu and (name, batch) == (args.precision[0], batches[0]))
        contenders, left_out = harness.all_of(
            _contenders(mode, architecture, stage, data, precision, compiled, args.peers)
        )
        making = Contender(mode, "views", data.make_views, ours=True, dtype=precision.name)
        ran, failed = harness.take_turns([*contenders, making], args.rounds, args.seconds, device)
        skipped += [*left_out, *failed]
        found = [harness.row(contender) for contender in ran]
        rows += [r for r in found if r["name"] != making.name]
        if args.profile:
            tables += [_profile(contender, device) for contender in _to_profile(ran)]
        fastest = max((r["img_per_s"] for r in rows if r["mode"] == mode and r["ours"]), default=0.0)
        shares[mode] = round(fastest / statistics.median(making.rates), 4) if making.rates else None
    result = {
        "machine": described,
        "arch": args.arch,
        "width": width,
        "side": side,
        "rounds": args.rounds,
        "rows": rows,
        "ratios": harness.ratios(rows, to_all=True),
        "views_share_of_our_step": shares,
        "skipped": list(dict.fromkeys(skipped)),
        "floors": {mode: floor for mode, floor in floors.items() if floor},
        "floor_note": step_floor.note(all(floors.values()), described["gpu"]),
    }
    return result, "\n\n".join(tables)


def _to_profile(contenders: list[Contender]) -> list[Contender]:
    """Ours, and the best peer to compare with."""
    peers = sorted((c for c in contenders if not c.ours), key=lambda c: statistics.median(c.rates))
    return [*(c for c in contenders if c.ours and c.name != "views"), *peers[-1:]]


def _profile(contender: Contender, device: torch.device) -> str:
    """torch.profiler's table of PROFILED_STEPS warm steps, dearest operations first."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        contender.run(PROFILED_STEPS)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    table = found.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=25)
    return f"{contender.mode}: {contender.name}, {PROFILED_STEPS} steps\n{table}"


class _Data:
    """Random images on the device, as batches for ours and as finished input for peers."""

    def __init__(self, geometry: Geometry, batch: int, precision: Precision) -> None:
        generator = torch.Generator().manual_seed(0)
        count, side, device = BATCHES * batch, geometry.side, precision.device
        pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
        self.images, self.batch = pixels.to(device), batch
        labels = torch.randint(0, CLASSES, (count,), generator=generator).to(device)
        ids = torch.arange(count, device=device)
        self.plan = views.TrainPlan(
            geometry=geometry, settings=ViewSettings(), seed=0, stage=0, epoch=1, dtype=precision.dtype
        )
        self.batches = [Batch(self.images, rows, labels[rows], rows) for rows in ids.split(batch)]
        self.inputs = [(self._views(b), b.labels) for b in self.batches]

    def _views(self, b: Batch) -> torch.Tensor:
        return views.apply(b.images, b.rows, b.ids, self.plan)

    def make_views(self, count: int) -> int:
        for i in range(count):
            self._views(self.batches[i % BATCHES])
        return count * self.batch


def _ours(mode, kind, architecture, stage, data: _Data, precision: Precision) -> Contender:
    network = build(architecture).to(precision.device, memory_format=torch.channels_last)
    step = stage_step(network, stage, Schedule(name="bench", stages=(stage,), step=kind), precision)

    def run(count: int) -> int:
        for i in range(count):
            step(data.batches[i % BATCHES], data.plan, 1e-3)
        return count * data.batch

    return Contender(mode, f"fastres {kind}", run, ours=True, dtype=precision.name, note="makes its views too")


def _kinds(precision: Precision, compiled: bool) -> list[str]:
    """Our kinds of steps that can run there."""
    kinds = ["eager", "compiled"] if compiled else ["eager"]
    for kind in ("captured", "fused", "captured-fused", "padded"):
        with contextlib.suppress(MachineError, UsageError):
            check_step(STEPS[kind], "torch", precision, "resident")
            kinds.append(kind)
    return kinds


def _contenders(mode, architecture, stage, data: _Data, precision: Precision, compiled: bool, wanted: str) -> list:
    """(name, maker) of all that take part in one kind of stage; of the peers those with `wanted` in their name."""

    def peer(name: str, note: str, make):
        def maker():
            step = make(architecture, stage, precision)

            def run(count: int) -> int:
                for i in range(count):
                    step(*data.inputs[i % BATCHES])
                return count * data.batch

            return [Contender(mode, name, run, dtype=precision.name, note=note)]

        return name, maker

    found = [
        (f"fastres {kind}", lambda kind=kind: [_ours(mode, kind, architecture, stage, data, precision)])
        for kind in _kinds(precision, compiled)
    ]
    return [*found, *(peer(*row) for row in peer_steps.peers(stage, compiled) if wanted in row[0])]
