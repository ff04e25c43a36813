"""Batched evaluation with the twelve views of section 4.2: one pass gives every crop method and combination.

python -m fastres.evaluate runs/live/paper-s0
python -m fastres.evaluate final.safetensors --data packed --combine softmax
python -m fastres.evaluate runs/live/paper-s0 --split test --submission answers.txt    # --views full: Table 1's others
python -m fastres.evaluate runs/live/paper-s0 --out mistakes    # each image's answer, confusions, the worst mistakes
python -m fastres.evaluate runs/live/paper-s0 --gate            # what further crops for unsure images alone would cost
python -m fastres.evaluate runs/live/paper-s0 --split test --submission answers.txt --gate 2.5
python -m fastres.evaluate runs/live/paper-s0 --shifted         # on fifteen corruptions of the photos, too
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from fastres import views
from fastres.data import described
from fastres.data.batch import Split
from fastres.data.engines import ENGINES, check_memory, open_split, packed_for
from fastres.data.labels import read_names
from fastres.data.manifest import FILE_NAME, Manifest, load_manifest
from fastres.evaluate import combining
from fastres.evaluate.asked import check_asked
from fastres.evaluate.belonging import check_side, data_of, in_order_of
from fastres.evaluate.gate import FIND, Gate, find_gate, gated_ranking, margin_or_find
from fastres.evaluate.mistake_files import as_text, claim_mistakes, write_mistakes
from fastres.evaluate.mistakes import find_mistakes
from fastres.evaluate.scores import check_scores, score
from fastres.evaluate.shifted import Shifted, judge_shifted
from fastres.evaluate.submission import are_answers, write_submission
from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.console import say
from fastres.machine.device import CHOICES, Precision, choose_precision
from fastres.machine.facts import device_name
from fastres.machine.folders import refuse_onto
from fastres.machine.kept_code import kept_beside
from fastres.machine.processes.distributed import open_world
from fastres.machine.processes.world import World
from fastres.machine.versions import of_code
from fastres.model.card import Card, card_of
from fastres.model.conditions import Given, add_options, completed, tell_assumed
from fastres.model.metadata import digest_of
from fastres.model.network import ResNet, describe
from fastres.model.target import read_model, read_with
from fastres.model.weights import network_from
from fastres.track.error_table import format_errors
from fastres.track.run_config import flatten


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "target",
        type=place,
        metavar="RUN_DIR|WEIGHTS",
        help="a finished run, a file of its checkpoints/ or stages/, or other weights (.pth, .t7; FILE::KEY: a part)",
    )
    p.add_argument("--data", type=place, help="packed folder (default: the run's, else packed/)")
    p.add_argument("--split", choices=("val", "test"), default="val")
    p.add_argument("--combine", choices=combining.COMBINATIONS, default="expsum", help="how crop scores become one")
    p.add_argument("--submission", type=place, metavar="FILE", help="write `file wnid` lines for the split")
    p.add_argument(
        "--views",
        choices=tuple(combining.METHODS),
        default=combining.ALL,
        help="which views --submission answers by (default: 12-crop); errors are shown of all",
    )
    p.add_argument(
        "--out", type=place, metavar="DIR", help="write what is answered wrongly: tables, each image, pictures"
    )
    p.add_argument(
        "--gate",
        type=margin_or_find,
        nargs="?",
        const=FIND,
        metavar="MARGIN",
        help="the centre crop alone where its best score leads by at least MARGIN, elsewhere more of the twelve, until "
        "their lead is safe; without a number: find the margin from a labelled split",
    )
    p.add_argument("--shifted", action="store_true", help="judge each of fifteen corruptions of the images as well")
    p.add_argument("--engine", choices=tuple(ENGINES), help="default: the first that the data are packed for")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(p)
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
    model = read_model(args.target)
    metadata, architecture = completed(model.metadata, Given.of(args), model.source), describe(model.state)
    network_from(model.state, model.source)  # what is no network of ours is said before any data are read
    packed = data_of(model.run, args.data)
    manifest = load_manifest(packed)
    read = [*read_with(model), packed / FILE_NAME, *(packed / name for name in manifest.files)]
    read += [args.classes] if args.classes else []
    refuse_onto("--submission", args.submission, read, lambda content: are_answers(content, manifest))
    card = card_of(metadata, architecture, model.source, side=manifest.side)
    check_side(card.geometry.side, manifest, packed, model.source)
    state = in_order_of(model.state, metadata, manifest, model.source)
    tell_assumed(card, model.source)
    labelled = f"{args.split}.labels.npy" in manifest.files
    if args.split == "val" and args.submission:
        say("note: writing answers for the validation split; the test split is --split test")
    check_asked(args, labelled, packed)
    precision = choose_precision(args.precision, world.device)
    engine = args.engine or next(iter(packed_for(manifest, args.split)), "resident")
    facts = {
        name: getattr(args, name) for name in ("split", "combine", "views", "submission", "out", "gate", "shifted")
    }
    facts |= {"engine": engine, "precision": precision.name, "device": world.device.type, "versions": of_code()}
    facts |= {"geometry": asdict(card.geometry), "settings": asdict(card.settings)}
    network = network_from(state, model.source)
    digests = {"content_digest": manifest.content_digest, "weights": digest_of(network.state_dict())}
    world.agree(lambda: flatten({**facts, **digests}))
    check_memory(engine, packed, manifest, [args.split], world.device)
    data = open_split(engine, packed, manifest, args.split, world.device)
    files = read_names(packed, manifest, args.split) if args.submission or labelled else []
    if args.out:
        world.from_first(lambda: claim_mistakes(args.out, args.combine))
    network = network.to(world.device, memory_format=torch.channels_last)
    world.same(network)
    say(f"device: {device_name(world.device)}, {precision.name}")
    with kept_beside(packed, world.device.type == "cuda"):
        scores, ranking, made = _scored(args, network, data, card, precision, world)
        check_scores(ranking[:, None] if scores is None else scores, model.source, precision)
        judged = (card.geometry, card.settings, precision, world, model.source)
        shifted = judge_shifted(network, data, *judged) if args.shifted else None

    def use() -> dict:
        result: dict = {"weights": str(model.source), "dataset": described.describe(manifest), "split": args.split}
        result["own_data"] = described.is_own(manifest)
        result |= {"count": len(data), "combine": args.combine, "assumed": list(card.assumed)}
        if args.submission:
            write_submission(args.submission, files, ranking, manifest)
            result["submission"] = str(args.submission)
        if made is not None:
            result["gate"] = {"margin": args.gate, "views": made}
            if labelled:
                result["errors"] = {args.combine: {"gated": combining.top_errors(ranking, data.labels.cpu())}}
        elif labelled:
            result |= _judged(args, scores.to(data.device), data, manifest, files)
        if shifted is not None:
            result["shifted"] = shifted.plain()
        return result

    return world.from_first(use)


def _scored(
    args: argparse.Namespace, network: ResNet, data: Split, card: Card, precision: Precision, world: World
) -> tuple[torch.Tensor | None, torch.Tensor, float | None]:
    """Scores f32 [N, 12, C] of all views, those of --views combined f64 [N, C]; or, behind a gate, no scores, and the
    views that were made, per image."""
    plan = views.twelve_views(card.geometry, card.settings, precision.dtype)
    if args.gate not in (None, FIND):
        return None, *gated_ranking(network, data, plan, precision, args.gate, args.combine, world)
    scores = score(network, data, plan, precision, world=world)
    return scores, combining.combine(scores[:, combining.METHODS[args.views]], args.combine), None


def _judged(
    args: argparse.Namespace, scores: torch.Tensor, data: Split, manifest: Manifest, files: Sequence[str]
) -> dict:
    """What the scores f32 [N, 12, C] of a labelled split say: errors, mistakes, the gate where it is asked for."""
    classes = [(info.wnid, info.name) for info in manifest.classes]
    found = find_mistakes(scores, data.labels, classes, files, args.combine)
    if args.out:
        write_mistakes(args.out, found, data)
    gate = {"gate": find_gate(scores, data.labels, args.combine).plain()} if args.gate == FIND else {}
    return {"errors": combining.error_table(scores, data.labels), "mistakes": found.plain(), **gate}


def show(result: dict, args: argparse.Namespace) -> None:
    """Print what `run` returned, as the command line asks."""
    if args.json:
        print(strict_json.dumps(result))
        return
    if "errors" in result:
        print(f"{result['count']} images of {result['dataset']}, scores combined by {args.combine}")
        crops = format_errors(result["errors"], args.combine, result["count"], split=args.split)
        tables = [crops, as_text(result["mistakes"])] if "mistakes" in result else [crops]
        print("\n\n".join(reversed(tables) if result["own_data"] else tables))
    if args.shifted:
        print(f"\n{Shifted.of(result['shifted']).as_text(result['count'])}")
    if args.gate == FIND:
        print(f"\n{Gate.of(result).as_text()}")
    elif args.gate is not None:
        made = result["gate"]["views"]
        print(f"{made:.2f} views an image: the centre alone where its margin is at least {args.gate:g}")
    if args.out:
        print(f"\neach image's answer, both tables and pictures are in {args.out}")
    if args.submission:
        print(f"{result['count']} answers written to {args.submission}")


if __name__ == "__main__":
    sys.exit(run_command(main))
