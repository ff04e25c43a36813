"""Under which conditions weights are used: what their file says, what the command line says where it cannot."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from fastres.machine.arguments import place
from fastres.machine.console import say
from fastres.machine.errors import DataError, UsageError
from fastres.machine.files import read_regular
from fastres.model.card import Card
from fastres.model.metadata import LARGEST, METADATA, makes_a_side
from fastres.schedules.view_settings import CONVENTIONS

OPTIONS = "--side, --upscale, --convention and --classes"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line says. classes: a file, one class a line in the order of the outputs: its id (a folder's
    name), and behind a tab its name where that is another."""

    side: int | None = None
    upscale: float | None = None
    convention: str | None = None
    classes: Path | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Given":
        upscale = args.upscale  # 4, as schedules have it, not 4.0
        upscale = int(upscale) if upscale is not None and upscale.is_integer() else upscale
        return cls(side=args.side, upscale=upscale, convention=args.convention, classes=args.classes)


NOTHING = Given()


def add_options(parser: argparse.ArgumentParser) -> None:
    """For weights that do not say themselves how they are to be used."""
    group = parser.add_argument_group("where the weights' file does not say")
    group.add_argument("--side", type=int, metavar="PIXELS", help="side of the images it was trained on")
    group.add_argument("--upscale", type=float, metavar="N", help="how many times those are enlarged")
    group.add_argument("--convention", choices=CONVENTIONS, help="how they are enlarged")
    group.add_argument("--classes", type=place, metavar="FILE", help="its classes, one a line: ID, or ID<tab>NAME")


def completed(metadata: dict, given: Given, source: object) -> dict:
    """`metadata` with what is given. DataError with both values where the file says otherwise, UsageError where what is
    given makes no sense."""
    told = {name: value for name in ("side", "upscale", "convention") if (value := getattr(given, name)) is not None}
    for name, value in told.items():
        expected, holds = METADATA[name]
        if not holds(value):
            raise UsageError(f"--{name} {value}: expected {expected}")
        if metadata.get(name, value) != value:
            raise DataError(
                f"weights {source}: made for {name} {metadata[name]}, --{name} says {value}; leave --{name} away"
            )
    together = {**metadata, **told}
    if {"side", "upscale"} <= together.keys() and not makes_a_side(together["side"], together["upscale"]):
        raise UsageError(
            f"--side and --upscale: {together['side']} pixels enlarged {together['upscale']:g} times, expected a "
            f"multiple of 8 up to {LARGEST} pixels"
        )
    if given.classes is not None:
        told["classes"] = read_classes(given.classes)
        known = metadata.get("classes", told["classes"])
        if [pair[0] for pair in known] != [pair[0] for pair in told["classes"]]:
            raise DataError(
                f"weights {source}: has the classes {_first(known)}, --classes {given.classes} says "
                f"{_first(told['classes'])}; leave --classes away"
            )
        told["classes"] = known
    return {**metadata, **told}


def read_classes(path: Path) -> list[list[str]]:
    """[[id, name], ...] of a text file. UsageError where it cannot be read or names a class twice."""
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--classes {path}: cannot be read ({error}), expected text, one class a line") from error
    rows = [line.strip().partition("\t") for line in lines if line.strip()]
    ids = [label.strip() for label, _, _ in rows]
    if twice := sorted({label for label in ids if ids.count(label) > 1}):
        raise UsageError(f"--classes {path}: names {twice[0]!r} twice, expected every class once")
    return [[label, name.strip() or label] for label, (_, _, name) in zip(ids, rows, strict=True)]


def tell_assumed(card: Card, source: object) -> None:
    """Say what neither file nor command line said."""
    if card.assumed:
        say(f"weights {source}: do not say all; assumed {', '.join(card.assumed)}; {OPTIONS} say otherwise")


def _first(classes: list) -> str:
    shown = ", ".join(label for label, _ in classes[:3])
    return f"{shown}{', ...' if len(classes) > 3 else ''} ({len(classes)})"
