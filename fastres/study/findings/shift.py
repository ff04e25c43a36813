"""How the systems fare on corrupted photos: study --shifted. What a run was judged at is kept beside it."""

import json
from pathlib import Path

from fastres.evaluate.shifted import CORRUPTIONS, Shifted, judge_shifted
from fastres.machine.console import say
from fastres.machine.device import choose_precision
from fastres.machine.files import write_atomic
from fastres.model.metadata import read_metadata
from fastres.study.findings.measures import spread_of, uncertainty
from fastres.study.findings.networks import WEIGHTS, loaded, opened, scorable
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
        kept = _kept(run)
        if kept is None:
            say(f"{run.folder.name}: on corrupted photos")
            network, geometry, settings = loaded(run, split, manifest.side)
            kept = judge_shifted(network, split, geometry, settings, precision, source=run.folder / WEIGHTS)
            content = {"weights": _digest(run), **kept.plain()}
            write_atomic(run.folder / KEPT, (json.dumps(content, indent=1) + "\n").encode())
        found.setdefault(run.name, []).append(kept)
    return _table(found, systems)


def _digest(run: Trained) -> str:
    return read_metadata(run.folder / WEIGHTS)["digest"]


def _kept(run: Trained) -> Shifted | None:
    """What these very weights were judged at; None where nothing fit to be read says so."""
    try:
        content = json.loads((run.folder / KEPT).read_bytes())
        return Shifted.of(content) if content["weights"] == _digest(run) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
