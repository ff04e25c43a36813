"""How the systems fare on corrupted photos: study --shifted. What a run was judged at is kept beside it."""

import json
from pathlib import Path

from fastres.data.batch import Split
from fastres.evaluate.shifted import CORRUPTIONS, Shifted, judge_shifted
from fastres.evaluate.shifted.corruptions import VERSION
from fastres.machine.console import say
from fastres.machine.device import Precision, choose_precision
from fastres.machine.errors import DataError, MachineError
from fastres.machine.files import write_atomic
from fastres.model.metadata import digest_of
from fastres.model.target import WEIGHTS
from fastres.study.findings.measures import spread_of, uncertainty
from fastres.study.findings.networks import loaded, opened, scorable
from fastres.study.findings.runs import Trained
from fastres.study.findings.tables import Table

KEPT = "shifted.json"  # in a run's folder


def shifts(systems: dict[str, list[Trained]], data: Path | None, device: str, precision: str) -> Table | None:
    """Judge every finished run's network on the fifteen corruptions; None where there is none.

    Those judged before are taken from their folders. `data`, errors: see networks.opened.
    """
    runs = [run for mine in systems.values() for run in scorable(mine)]
    if not runs:
        return None
    split, manifest = opened(runs, data, device)
    precision = choose_precision(precision, split.device)
    found: dict[str, list[Shifted]] = {}
    for run in runs:
        try:
            found.setdefault(run.name, []).append(_judged(run, split, manifest.side, precision))
        except DataError as fault:
            say(f"{run.folder.name} is not judged on corrupted photos: {fault}")
    return _table({name: mine for name, mine in found.items() if mine}, systems)


def _judged(run: Trained, split: Split, side: int, precision: Precision) -> Shifted:
    """What the run's network errs on, now or as it was judged before by the same corruptions and in this precision."""
    network, geometry, settings = loaded(run, split, side)
    of = {"weights": digest_of(network.state_dict()), "precision": precision.name, "corruptions": VERSION}
    try:
        content = json.loads((run.folder / KEPT).read_bytes())
        if {name: content.get(name) for name in of} == of:
            return Shifted.of(content)
    except (OSError, ValueError, AttributeError):  # nothing there that is fit to be read
        pass
    say(f"{run.folder.name}: on corrupted photos")
    found = judge_shifted(network, split, geometry, settings, precision, source=run.folder / WEIGHTS)
    try:
        write_atomic(run.folder / KEPT, (json.dumps({**of, **found.plain()}, indent=1) + "\n").encode())
    except (OSError, MachineError) as fault:
        say(f"{run.folder.name}: what it errs on is not kept, and is judged anew another time: {fault}")
    return found


def _table(found: dict[str, list[Shifted]], systems: dict[str, list[Trained]]) -> Table:
    rows = []
    for name, mine in found.items():
        mean = spread_of([one.mean for one in mine])
        clean = spread_of([one.clean for one in mine])
        kinds = [spread_of([one.of_kind(kind) for one in mine]) for kind in CORRUPTIONS]
        rows.append((name, len(mine), clean, *kinds, mean, uncertainty(systems[name], mean), mean.mean - clean.mean))
    return Table(
        "Corrupted photos: val top-1 error in % by the centre crop",
        ("system", "seeds", "clean", *CORRUPTIONS, "mean of 15", "s.e.", "lost"),
        rows,
        "Noise, blur, weather and digital hold three, four, four and four corruptions at the third of five severities "
        "(fastres/evaluate/shifted). s.e.: of the images, as if each were corrupted once, and of the seeds. Lost: what "
        "the corruptions add to the error.",
    )
