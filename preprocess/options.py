"""The packer's command line."""

import argparse
from pathlib import Path

from fastres.data.libraries import installed
from preprocess.writers import WRITERS

LARGEST_SIDE = 1024
SMALL_WORLDS = ("target", "study", "source", "tiny")  # fastres.small_world.PARTS, whose compiler takes seconds to load


def parse_arguments(argv: list[str] | None, doc: str) -> argparse.Namespace:
    """The options, --out and --engines filled in. `doc`: what the help text begins with."""
    parser = argparse.ArgumentParser(
        prog="pack.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--source", type=Path, metavar="DIR|ZIP", help="the data set, unpacked or as its zip")
    origin.add_argument(
        "--small-world",
        nargs="?",
        const="target",
        choices=SMALL_WORLDS,
        help="render the stand-in into <out>/tree and pack that; target (the default) is what the demo trains on, "
        "study what the study does, source what their pretrained net saw, tiny has Tiny ImageNet's sizes (benchmarks)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: packed; packed-small-world for that")
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
    parser.add_argument("--workers", type=positive, metavar="N", help="decoding processes; default: one a core")
    parser.add_argument(
        "--on-bad",
        choices=("stop", "skip"),
        default="stop",
        help="images that cannot be packed: stop and list them (the default), or leave them out and write the list",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        const="fast",
        choices=("fast", "full"),
        help="pack nothing, verify what lies in <out>: sizes and samples of every file (fast), or every byte (full)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    options = parser.parse_args(argv)
    if options.out is None:
        ending = "" if options.small_world == SMALL_WORLDS[0] else f"-{options.small_world}"
        options.out = Path(f"packed-small-world{ending}" if options.small_world else "packed")
    return options


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


def side(text: str) -> int:
    number = positive(text)
    if number % 8 or number > LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a multiple of 8 up to {LARGEST_SIDE}")
    return number
