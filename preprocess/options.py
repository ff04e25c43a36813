"""The packer's command line."""

import argparse
from pathlib import Path

from fastres.data.convert import WHITE, colour
from fastres.data.libraries import installed
from fastres.machine.arguments import place
from fastres.machine.errors import UsageError
from preprocess.selection import slice_of
from preprocess.writers import WRITERS

LARGEST_SIDE = 1024
SMALL_WORLDS = (
    "target",
    "study",
    "source",
    "tiny",
)  # preprocess.small_world.PARTS, whose compiler takes seconds to load


def parser(doc: str | None = None) -> argparse.ArgumentParser:
    """`doc`: what the help text begins with. What it parses, `completed` makes whole."""
    parser = argparse.ArgumentParser(
        prog="pack.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument(
        "--source", type=place, metavar="DIR|ARCHIVE|CSV", help="the data set: a folder, zip, tar or CSV"
    )
    origin.add_argument(
        "--small-world",
        nargs="?",
        const="target",
        choices=SMALL_WORLDS,
        help="render the stand-in into <out>/tree and pack that; target (the default) is what the demo trains on, "
        "study what the study does, source what their pretrained net saw, tiny has Tiny ImageNet's sizes (benchmarks)",
    )
    parser.add_argument("--out", type=place, metavar="DIR", help="default: packed; packed-small-world for that")
    parser.add_argument(
        "--engines",
        default=[name for name in sorted(WRITERS) if installed(name)],
        type=engines,
        metavar="A,B",
        help=f"formats to write, of {', '.join(WRITERS)}; default: every one whose library is installed",
    )
    parser.add_argument(
        "--side", type=side, metavar="S", help="shrink the short side to S and crop the centre; default: as they are"
    )
    _what_is_taken(parser)
    parser.add_argument(
        "--background", type=colour, default=WHITE, metavar="COLOUR", help="behind transparent pixels; default: white"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="decoding processes; default: one a core")
    parser.add_argument(
        "--on-bad",
        choices=("stop", "skip"),
        default="stop",
        help="images that cannot be packed, and class folders without any: stop and list them (the default), or leave "
        "them out and write the list",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        const="fast",
        choices=("fast", "full"),
        help="pack nothing, verify what lies in <out>: sizes and samples of every file (fast), or every byte (full)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    return parser


def completed(options: argparse.Namespace) -> argparse.Namespace:
    """The options with --out filled in. UsageError for those that do not go together."""
    if options.val_seed is not None and options.val_fraction is None:
        raise UsageError("--val-seed: goes with --val-fraction only")
    if options.small_world and options.val_fraction is not None:
        raise UsageError("--val-fraction: the small world has validation images of its own; leave the option out")
    options.val_seed = options.val_seed or 0
    if options.out is None:
        ending = "" if options.small_world == SMALL_WORLDS[0] else f"-{options.small_world}"
        options.out = Path(f"packed-small-world{ending}" if options.small_world else "packed")
    return options


def _what_is_taken(parser: argparse.ArgumentParser) -> None:
    """The options that say which images of the data set are packed, and on which side."""
    parser.add_argument(
        "--classes", type=class_slice, metavar="A:B:C", help="a slice of the sorted class list, such as 0::2"
    )
    parser.add_argument(
        "--per-class",
        type=per_class,
        metavar="N[,M]",
        help="the first N training and M validation images of each class, by file number",
    )
    parser.add_argument(
        "--val-fraction",
        type=fraction,
        metavar="F",
        help="hold this share of each class's training images out as the validation set, where there is none",
    )
    parser.add_argument(
        "--val-seed", type=seed, metavar="N", help="which images --val-fraction holds out follows from it; default: 0"
    )


def engines(text: str) -> list[str]:
    names = sorted(set(text.split(",")))
    for name in names:
        if name not in WRITERS:
            raise argparse.ArgumentTypeError(f"found {name!r}, expected some of {', '.join(WRITERS)}")
    return names


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return int(text)


def class_slice(text: str) -> str:
    try:
        if slice_of(text).step == 0:
            raise ValueError(f"found {text!r}, expected a step that is not 0")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def per_class(text: str) -> tuple[int, int | None]:
    train, comma, val = text.partition(",")
    return positive(train), positive(val) if comma else None


def fraction(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a share between 0 and 1, such as 0.2")
    return share


def seed(text: str) -> int:
    return 0 if text == "0" else positive(text)


def side(text: str) -> int:
    number = positive(text)
    if number % 8 or number > LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a multiple of 8 up to {LARGEST_SIDE}")
    return number
