"""What is in these images: the five likeliest classes of each, from a run, a weights file or an ONNX file.

    python -m fastres.predict photo.jpg --model runs/live/paper-s0
    python -m fastres.predict photos "more/**/*.png" --model runs/live/paper-s0 --csv answers.csv
    find photos -name "*.jpg" -print0 | python -m fastres.predict - --model net.onnx --views centre --json

A folder stands for every image in it. Images are decoded as the packer decodes them (upright, transparency on
--background, the centre square brought to the side the network was trained on) and seen through the twelve test views,
so the scores are those that fastres.evaluate would give them. A file that is no image is named, the others are
answered, and the exit code is 3.
"""

import argparse
import sys
from collections.abc import Iterable
from contextlib import nullcontext

from fastres.data.convert import colour
from fastres.data.decode import Recipe
from fastres.data.decode_chunk import UNREADABLE
from fastres.evaluate import combining
from fastres.evaluate.answers import PROBABLE, TOP, as_csv, begins_with, columns, row, words_of
from fastres.evaluate.gate import margin
from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.console import Progress, say
from fastres.machine.device import CHOICES
from fastres.machine.errors import DataError
from fastres.machine.files import write_atomic
from fastres.machine.folders import refuse_onto
from fastres.machine.processes.distributed import open_world
from fastres.model.card import Card
from fastres.model.conditions import Given, add_options
from fastres.predict.answering import AT_ONCE, Answer, Answering, open_model
from fastres.predict.named import images_of

FIRST = ("image",)  # columns of --csv before the answers


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "images",
        type=place,
        nargs="+",
        metavar="IMAGE",
        help="files of any size that Pillow reads, folders, quoted patterns; -: a list of paths on standard input",
    )
    p.add_argument(
        "--model",
        type=place,
        required=True,
        metavar="RUN_DIR|FILE|NAME",
        help="a finished run, a .safetensors, .onnx, .pth or .t7 file (FILE::KEY: a part), timm:resnet18.a1_in1k or "
        "ResNet18_Weights.IMAGENET1K_V1",
    )
    p.add_argument("--views", choices=tuple(combining.METHODS), default="12-crop", help="which views are combined")
    p.add_argument(
        "--gate",
        type=margin,
        metavar="MARGIN",
        help="the centre crop alone where its margin is this or more, else further views; `evaluate --gate` finds it",
    )
    p.add_argument("--combine", choices=PROBABLE, default="expsum", help="how their scores become one")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument(
        "--background",
        type=colour,
        metavar="COLOUR",
        help="behind transparent pixels; default: that of the images that the network was trained on, else white",
    )
    p.add_argument("--csv", type=place, metavar="FILE", help="write a row an image here: path, classes, probabilities")
    p.add_argument("--json", action="store_true", help="print a JSON object a line, an image each")
    add_options(p)
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with open_world(args.device) as world:
        network, card, precision = open_model(args.model, args.precision, world.device, Given.of(args))
    paths = images_of(args.images, lambda: sys.stdin.buffer.read())
    refuse_onto("--csv", args.csv, [args.model, *paths], lambda content: begins_with(content, FIRST))
    answering = Answering(network, card, precision, args.model, args.views, args.combine, args.gate)
    shown = args.json or not args.csv
    many = len(paths) > AT_ONCE and not (shown and sys.stdout.isatty())  # answers there would break the bar
    with Progress(len(paths), "prediction", lines=True) if many else nullcontext() as progress:
        recipe = Recipe(card.geometry.side, resize=True, background=args.background or colour(card.background))
        bad = tell(answering.answers(paths, recipe, progress), card, args, alone=len(paths) == 1)
    if bad and len(paths) == 1:
        raise DataError(bad[0])
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} images could not be read, as said above; the others are answered")
    return 0


def tell(answers: Iterable[Answer], card: Card, args: argparse.Namespace, alone: bool) -> list[str]:
    """Print each answer as it comes, or keep them for --csv, which is written at the end, whole. Returns the faults,
    which are said too, but for that of an image `alone`: it is the command's.
    """
    rows, bad, words = [columns(FIRST, min(TOP, len(card.classes)))], [], words_of(card.classes)
    for answer in answers:
        if answer.fault is not None:
            there = not answer.fault.startswith(UNREADABLE)
            remedy = "leave it out, or convert it to JPEG or PNG" if there else "check the path and its permissions"
            bad.append(f"image {answer.path}: {answer.fault}; {remedy}")
            if not alone:
                say(bad[-1])
        elif args.csv:
            rows.append(row((str(answer.path),), words, answer.classes, answer.probabilities))
        if args.json:
            print(strict_json.dumps(as_object(answer, card)))
        elif not args.csv and answer.fault is None:
            print(as_text(answer, card))
    if args.csv:
        write_atomic(args.csv, as_csv(rows))
        say(f"{len(rows) - 1} answers written to {args.csv}")
    return bad


def as_object(answer: Answer, card: Card) -> dict:
    """{"image", "top": [{"class", "name", "probability"}, ...]}, or {"image", "error"}."""
    if answer.fault is not None:
        return {"image": str(answer.path), "error": answer.fault}
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    top = [{"class": card.classes[c][0], "name": card.classes[c][1], "probability": p} for c, p in pairs]
    return {"image": str(answer.path), "top": top}


def as_text(answer: Answer, card: Card) -> str:
    lines = [str(answer.path)]
    for c, probability in zip(answer.classes, answer.probabilities, strict=True):
        label, name = card.classes[c]
        lines.append(f"  {100 * probability:5.1f} %  {name}" + ("" if label == name else f" ({label})"))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
