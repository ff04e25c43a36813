"""Which of evaluate's options go together, and with which data."""

import argparse
from pathlib import Path

from fastres.evaluate import combining
from fastres.evaluate.gate import FIND
from fastres.machine.errors import UsageError
from fastres.model.target import WEIGHTS
from fastres.track.error_table import PAPERS
from fastres.track.mistakes import FOLDER


def _as_a_run(args: argparse.Namespace) -> bool:
    """Whether what is evaluated is what a run evaluates at its end."""
    return args.split == "val" and args.combine == PAPERS and args.data is None


def _is_of_another(args: argparse.Namespace) -> bool:
    """Whether --out is where a run keeps what its own final weights get wrong, and this is something else."""
    out = args.out.resolve()
    if out.name != FOLDER or not (out.parent / "config.json").is_file():
        return False
    return not _as_a_run(args) or args.target.resolve() not in (out.parent, out.parent / WEIGHTS)


def check_asked(args: argparse.Namespace, labelled: bool, packed: Path) -> None:
    """UsageError where labels are asked for and the split has none, or a gate where all views are asked for."""
    if args.shifted and args.gate not in (None, FIND):
        raise UsageError("--gate MARGIN and --shifted: one of them at a time")
    if args.views != combining.ALL and not args.submission:
        raise UsageError(
            f"--views {args.views}: says which views answers are written by, expected --submission FILE beside it"
        )
    if args.views != combining.ALL and args.gate not in (None, FIND):
        raise UsageError(
            f"--gate MARGIN: makes as many views as an image needs, --views {args.views} its own; drop one"
        )
    if args.out and args.gate is not None and args.gate != FIND:
        raise UsageError("--gate MARGIN: does without most views, --out shows what each says; drop one of the two")
    if args.out and _is_of_another(args):
        raise UsageError(
            f"--out {args.out}: is a run's own folder, of its final weights, its own validation images and --combine "
            "expsum; expected another one"
        )
    if args.split == "test" and not labelled and (args.out or args.shifted or args.gate == FIND or not args.submission):
        raise UsageError(
            f"--split test: is unlabelled in {packed}, so it gives no error; expected --submission FILE alone, or test "
            "images in the classes' folders, packed again"
        )
