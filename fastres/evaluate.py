"""Batched evaluation with the twelve views of section 4.2: one pass gives every crop method and combination.

    python -m fastres.evaluate runs/live/paper-s0
    python -m fastres.evaluate final.safetensors --data packed --combine softmax
    python -m fastres.evaluate runs/live/paper-s0 --split test --submission answers.txt
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision.models.resnet import ResNet

from fastres import scoring, views
from fastres.data.engines import Split, open_split, packed_for
from fastres.data.manifest import Manifest, load_manifest, verify_file
from fastres.engine.distributed import open_world
from fastres.engine.precision import CHOICES, Precision, choose_precision
from fastres.engine.step import compiled
from fastres.engine.world import World
from fastres.errors import DataError, MachineError, UsageError, run_command
from fastres.files import write_atomic
from fastres.geometry import Geometry
from fastres.model.fold import StageNetwork
from fastres.model.network import describe
from fastres.model.weights import check_digest, final_weights, network_from, read_metadata, read_weights
from fastres.schedule_types import ViewSettings
from fastres.track.console import Progress, say, table
from fastres.track.run_dir import read_object

# Views in one forward pass. In float32 a 224-pixel view of ResNet-18 holds 5.8 MB at once (its stem's output is 3.2 MB,
# twice), of ResNet-50 9.9 MB: 256 views take 1.5 or 2.5 GB on a CPU. Where a GPU's memory does not hold 3,072, the
# number is halved until it does.
VIEWS_PER_PASS = {"cpu": 256, "cuda": 3072}


@torch.no_grad()
def score(
    network: nn.Module, data: Split, plan: views.TestPlan, precision: Precision, *, label: str = "evaluation",
    between: Callable[[], None] = lambda: None, world: World | None = None, compile: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Class scores of every image and view: f32 [N, V, C] on the CPU. Exactly N, in order, nothing padded.

    A ResNet is folded first, whatever mode it is in, and compiled where `compile` asks for it; anything else is put in
    eval mode and left there.
    `between` is called before every batch, and may raise to stop. MachineError where not even one image fits the GPU.
    The processes of a `world` share the work, batch by batch, with the first one's BatchNorm statistics; all return
    all scores.
    """
    world = world or World(data.device)
    world.same_statistics(network)
    if isinstance(network, ResNet):
        network = StageNetwork(network, precision.dtype, inference=True, fused=not compile)
        network = compiled(network) if compile else network
    network.eval()
    batch_size = max(1, VIEWS_PER_PASS[data.device.type] // len(plan.views))
    ids = world.deal(len(data), batch_size)
    while True:
        try:
            scores = _score(network, data, ids, plan, precision, batch_size, label, between)
            return world.gather_rows(scores, ids, len(data))
        except torch.cuda.OutOfMemoryError as error:
            if batch_size == 1:
                raise MachineError(f"{label}: one image's views do not fit the GPU's memory; free it") from error
        batch_size //= 2
        torch.cuda.empty_cache()
        say(f"{label}: the GPU's memory is full, going on with {batch_size} images a pass")


def _score(network, data: Split, ids, plan: views.TestPlan, precision: Precision, batch_size: int, label, between):
    out, inputs = [torch.empty(0, len(plan.views), 0)] if len(ids) == 0 else [], {}
    with Progress(len(ids), label) as progress:
        for batch in data.batches(ids, batch_size):
            between()
            size = len(batch.ids)
            x = views.apply(batch.images, batch.rows, batch.ids, plan, out=inputs.get(size))
            inputs[size] = x  # written over by the next batch
            with precision.autocast():
                logits = network(x)
            out.append(logits.float().view(size, len(plan.views), -1))
            progress.update(size)
    return torch.cat(out).cpu()


def evaluate(
    network: nn.Module, data: Split, geometry: Geometry, settings: ViewSettings, precision: Precision,
    between: Callable[[], None] = lambda: None, world: World | None = None, compile: bool = False,
) -> tuple[dict, torch.Tensor]:  # fmt: skip
    """The error table of a labelled split and the scores f32 [N, 12, C] it was made from. The rest: see score."""
    plan = views.TestPlan(geometry=geometry, settings=settings, views=views.TWELVE_VIEWS, dtype=precision.dtype)
    world = world or World(data.device)
    scores = score(network, data, plan, precision, between=between, world=world, compile=compile)
    return world.from_first(lambda: scoring.error_table(scores.to(data.device), data.labels)), scores


def format_errors(errors: dict, how: str, count: int, expected: dict[str, float] | None = None) -> str:
    """Table 1's layout: crop methods down, top-1 and top-5 error in % across, the paper's figures beside them."""
    header = ["crop method", "val top-1 err %", "+-", "val top-5 err %"]
    expected = expected or {}
    if expected:
        header += ["paper top-1", "paper top-5"]
    rows = []
    for method, figures in errors[how].items():
        row = [method, figures["top1"], scoring.standard_error(figures["top1"], count), figures["top5"]]
        if expected:
            row += [expected.get(f"{method} top1"), expected.get(f"{method} top5")]
        rows.append(row)
    return table(rows, header)


def read_names(packed: Path, manifest: Manifest, split: str) -> list[str]:
    """The split's file names in order; DataError if the list is not the one that was packed."""
    verify_file(packed, manifest, f"{split}.files.txt")
    return (packed / f"{split}.files.txt").read_text().splitlines()


def write_submission(path: Path, names: list[str], ranking: torch.Tensor, manifest: Manifest) -> None:
    """`test_0.JPEG n01443537` lines in the order of the split: file name, wnid of the best class."""
    best = ranking.argmax(1).tolist()
    lines = [f"{Path(name).name} {manifest.classes[c].wnid}\n" for name, c in zip(names, best, strict=True)]
    write_atomic(path, "".join(lines).encode())


def _weights_of(target: Path) -> tuple[Path, dict]:
    """The weights file a user means, and the summary of its run ({} for a bare file)."""
    weights = final_weights(target)
    if not target.is_dir():
        return weights, {}
    return weights, read_object(target / "summary.json", "pass --data DIR and the weights file itself") or {}


def _check_classes(metadata: dict, classes: int, manifest: Manifest, weights: Path) -> None:
    theirs = metadata.get("class_digest", manifest.class_digest)
    if classes != manifest.num_classes or theirs != manifest.class_digest:
        raise DataError(
            f"weights {weights}: trained for {classes} classes (map {theirs[:12]}...), expected the data's "
            f"{manifest.num_classes} (map {manifest.class_digest[:12]}...); evaluate on the data set it was trained for"
        )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("target", type=Path, metavar="RUN_DIR|WEIGHTS", help="a finished run, or weights (.pth, .t7 too)")
    p.add_argument("--data", type=Path, help="packed folder (default: the run's, else packed/)")
    p.add_argument("--split", choices=("val", "test"), default="val")
    p.add_argument("--combine", choices=scoring.COMBINATIONS, default="expsum", help="how crop scores become one")
    p.add_argument("--submission", type=Path, metavar="FILE", help="write `file wnid` lines for the split")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with open_world(args.device) as world:
        result = run(args, world)
        if world.first:
            show(result, args)
    return 0


def run(args: argparse.Namespace, world: World) -> dict:
    """Score what the command line names; the first process writes the answers and makes the table."""
    weights, summary = _weights_of(args.target)
    packed = args.data or Path(str(summary.get("data", "packed")))
    manifest = load_manifest(packed)
    state, metadata = read_weights(weights), read_metadata(weights)
    check_digest(state, metadata, weights)
    architecture = describe(state)
    network = network_from(state, weights)
    _check_classes(metadata, architecture.classes, manifest, weights)
    if args.split == "val" and args.submission:
        say("note: writing answers for the validation split; the test split is --split test")
    if args.split == "test" and not args.submission:
        raise UsageError("--split test is unlabelled, so it gives no error; expected --submission FILE")

    world.agree("packed data", manifest.content_digest)
    precision = choose_precision(args.precision, world.device)
    engine = next(iter(packed_for(manifest, args.split)), "resident")
    data = open_split(engine, packed, manifest, args.split, world.device)
    names = read_names(packed, manifest, args.split) if args.submission else []
    network.to(world.device, memory_format=torch.channels_last)
    world.same(network)
    settings = ViewSettings(convention=metadata.get("convention", ViewSettings().convention))
    geometry = Geometry(manifest.side, metadata.get("upscale", architecture.upscale))
    plan = views.TestPlan(geometry=geometry, settings=settings, views=views.TWELVE_VIEWS, dtype=precision.dtype)
    scores = score(network, data, plan, precision, world=world)

    def use() -> dict:
        result: dict = {"weights": str(weights), "split": args.split, "count": len(data), "combine": args.combine}
        if args.submission:
            write_submission(args.submission, names, scoring.combine(scores, args.combine), manifest)
            result["submission"] = str(args.submission)
        if args.split == "val":
            result["errors"] = scoring.error_table(scores.to(data.device), data.labels)
        return result

    return world.from_first(use)


def show(result: dict, args: argparse.Namespace) -> None:
    """Print what `run` returned, as the command line asks."""
    if args.json:
        print(json.dumps(result))
        return
    if "errors" in result:
        print(f"{result['count']} images, scores combined by {args.combine}")
        print(format_errors(result["errors"], args.combine, result["count"]))
    if args.submission:
        print(f"{result['count']} answers written to {args.submission}")


if __name__ == "__main__":
    sys.exit(run_command(main))
