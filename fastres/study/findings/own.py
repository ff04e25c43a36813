"""A study on data of one's own: errors by class first, systems by their schedules' names, nothing of the paper.

The paper's figures, its claims and the numbers of its tables are about Tiny ImageNet, and stay away from other data.
"""

from dataclasses import replace
from pathlib import Path

from fastres.evaluate.combining import METHODS
from fastres.machine.errors import DataError
from fastres.study.findings import tables
from fastres.study.findings.crops import Answers, draw_answers, kinds_table
from fastres.study.findings.curves import CurveFigure, draw_curves
from fastres.study.findings.filters import draw_filters
from fastres.study.findings.measures import Spread, ranked, spread, spread_of, uncertainty
from fastres.study.findings.page import Section, file_of
from fastres.study.findings.runs import Trained
from fastres.study.findings.tables import Table, fate
from fastres.track.mistakes import class_errors
from fastres.track.pictures import COLOURS

KIND = "other"  # of the data: neither the paper's, nor a part of them, nor drawn
BESIDE = 4  # systems in the table of classes: more do not fit a screen
SHOWN = 10  # classes before the fold
ANSWERS, FILTERS = "answers by crop method", "filters of the first layer"
NO_CLASSES = "errors by class are not shown: "


def make_tables(systems: dict[str, list[Trained]], answers: Answers | None, notes: list[str]) -> dict[str, Table]:
    """By key, in the order of the report. Says in `notes` why there are no errors by class."""
    ordered = {name: systems[name] for name in ranked(systems)}
    best = next(iter(ordered))
    found = {}
    try:
        found["classes"] = classes_table(ordered)
    except DataError as fault:
        notes.append(f"{NO_CLASSES}{fault}")
    found["systems"] = _systems_table(ordered)
    found["crops"] = Table(
        "Crop methods at test time, val top-1 error in %",
        ("system", *METHODS),
        [(name, *(spread(runs, f"{method} top1") for method in METHODS)) for name, runs in ordered.items()],
    )
    combined = tables.combinations(ordered, (best,))
    found["combinations"] = replace(combined, title="Combining the crops, val top-1 error in %", note="")
    found["stages"] = tables.stage_speeds(ordered)
    if (gates := tables.gates(ordered)).rows:
        found["gates"] = gates
    if answers is not None:
        kinds = kinds_table(answers)
        found[ANSWERS] = replace(kinds, title=kinds.title.partition(": ")[2])
    return found


def classes_table(ordered: dict[str, list[Trained]]) -> Table:
    """A class a row, the largest errors of the first system first; DataError where a run says nothing of its classes.

    ordered: runs by system, the best first; those that are not finished are left out.
    """
    there = {name: [run for run in runs if run.status == "done"] for name, runs in ordered.items()}
    names = [name for name, runs in there.items() if runs][:BESIDE]
    if not names:
        raise DataError("no run is finished")
    errors = {name: [class_errors(run.folder) for run in there[name]] for name in names}
    rows = []
    for label, (shown, images, _) in enumerate(errors[names[0]][0]):
        means = [spread_of([run[label][2] for run in errors[name]]) for name in names]
        rows.append((shown, images, means[0], _error_of(means[0], images), *means[1:]))
    rows.sort(key=lambda row: (-(row[2].mean if row[2] else -1.0), -row[1]))
    left_out = f"; the {BESIDE} best of {len(ordered)} systems" if len(ordered) > BESIDE else ""
    return Table(
        f"Error by class in % (val top-1, 12-crop), the largest of {names[0]} first",
        ("class", "images", names[0], "s.e.", *names[1:]),
        rows,
        f"± over seeds; s.e.: standard error of {names[0]} from the class's validation images and the seeds{left_out}.",
        shown=SHOWN,
    )


def _error_of(found: Spread | None, images: int) -> float | None:
    return None if found is None else uncertainty([], found, images)


def _systems_table(ordered: dict[str, list[Trained]]) -> Table:
    """A system a row: its errors, how surely they are known, and what its runs cost here."""
    rows = []
    for name, runs in ordered.items():
        top1 = spread(runs, "12-crop top1")
        done = [run for run in runs if run.status == "done" and run.epochs]
        speed = spread_of([run.images * len(run.epochs) / run.summary["train_s"] for run in done])
        rows.append(
            (
                name,
                len(runs),
                top1,
                uncertainty(runs, top1) if top1 else None,
                spread(runs, "12-crop top5"),
                spread(runs, "centre top1"),
                sum(stage["epochs"] for stage in runs[0].schedule["stages"]),
                f"{speed.mean:,.0f}" if speed else None,
                spread_of([run.summary["train_s"] for run in done]),
                spread_of([run.summary.get("wall_s") for run in done]),  # not in those of older versions
                fate(runs),
            )
        )
    errors = ("val top-1", "s.e.", "val top-5", "centre top-1")
    header = ("system", "seeds", *errors, "epochs", "img/s", "train s", "wall s", "")
    return Table(
        "Systems, the best first, error in % (12-crop unless said)",
        header,
        rows,
        "± over seeds; s.e.: standard error of val top-1 from the validation images and the seeds. img/s and train s: "
        "all epochs of training, those of stages that a system shares with another one too. wall s: a run's own "
        "commands from start to end, shared stages not among them.",
    )


def draw(systems: dict[str, list[Trained]], answers: Answers | None, out: Path) -> dict[str, Path]:
    """Every picture by key, as PNGs in `out`: all systems by epoch, as many in one as there are colours."""
    names, pictures = ranked(systems), {}
    for start in range(0, len(names), len(COLOURS)):
        key = "error by epoch" + (f" {start // len(COLOURS) + 1}" if len(names) > len(COLOURS) else "")
        figure = CurveFigure(key, "Validation error", tuple(names[start : start + len(COLOURS)]), "")
        pictures[key] = draw_curves(figure, systems, out / file_of(key))
    pictures[FILTERS] = draw_filters(systems, out / file_of(FILTERS), names)
    if answers is not None:
        pictures[ANSWERS] = draw_answers(answers, out / file_of(ANSWERS))
    return {key: path for key, path in pictures.items() if path is not None}


def sections(found: dict[str, Table], pictures: dict[str, Path], summary: list[str]) -> list[Section]:
    """The report but its last section, how it was made."""

    def shown(title: str, *keys: str, picture: str = "") -> list[Section]:
        there = tuple(found[key] for key in keys if key in found)
        return [Section(title, picture=pictures.get(picture), tables=there)] if there or picture in pictures else []

    curves = [Section(key.capitalize(), picture=pictures[key]) for key in pictures if key.startswith("error by epoch")]
    return [
        *shown("Error by class", "classes"),
        Section("In short", text="\n".join(summary)),
        *shown("Systems", "systems"),
        *curves,
        *shown("Crop methods", "crops", "combinations", "gates"),
        *shown("What the crop method changes", ANSWERS, picture=ANSWERS),
        *shown("Filters of the first layer", picture=FILTERS),
        *shown("Cost", "stages"),
    ]


def in_short(systems: dict[str, list[Trained]]) -> list[str]:
    """How many systems, and which has the lowest error."""
    best = ranked(systems)[0]
    runs = systems[best]
    lines = [f"{len(systems)} systems, {sum(map(len, systems.values()))} runs"]
    if top1 := spread(runs, "12-crop top1"):
        error = uncertainty(runs, top1)
        lines.append(f"lowest error: {best}, {top1} % (val top-1, 12-crop; standard error {error:.2f})")
    return lines
