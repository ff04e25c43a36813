"""`study paper --check RUN...`: a user's own runs on Tiny ImageNet beside the paper's figures, row by row.

A figure holds where it lies within the tolerance of the paper's: MARGIN points, for other pretrained weights
(torchvision's) and for what the paper leaves open, and twice our standard error on the validation images. Where the
paper does not name the crop of a figure, it holds by 12-crop or by the centre crop. A row that does not hold is a
result and no fault.
"""

from dataclasses import dataclass
from pathlib import Path

from fastres.machine.errors import DataError
from fastres.schedules import SCHEDULES
from fastres.study.findings.measures import Spread, spread, uncertainty
from fastres.study.findings.runs import Trained, by_system, read_runs
from fastres.study.findings.tables import Table

VALIDATION_IMAGES = 10_000
# Table 2's, see schedules/paper.py.
CROP_NOT_NAMED = ("naive-fc", "feature-extractor", "feature-extractor-50")
# Points. The weights differ by 0.2 points on ImageNet itself, by their publishers (30.4 and 30.2 %); the rest is batch
# size, rate rule and seeds. The curve's first epoch is read from a sentence ("38 %") and moves fast.
MARGIN = {"top1": 1.5, "top5": 1.0, "first-epoch centre top1": 4.0}


@dataclass(frozen=True)
class Row:
    """One figure of the paper and what these runs have. `word`: holds, lower, higher, or why there is none."""

    system: str
    figure: str
    paper: float
    found: Spread | None
    tolerance: float | None
    word: str

    def plain(self) -> dict:
        found = None if self.found is None else self.found.plain()
        return {
            "system": self.system,
            "figure": self.figure,
            "paper": self.paper,
            "found": found,
            "tolerance": self.tolerance,
            "verdict": self.word,
        }


def check(folders: list[Path]) -> tuple[list[Row], dict[str, list[Trained]]]:
    """Every figure of the paper for the systems of these runs, and the runs by system.

    DataError for a run that is not on Tiny ImageNet's 10,000 validation images.
    """
    runs = read_runs(folders)
    for run in runs:
        count = run.summary.get("count", VALIDATION_IMAGES)
        if not run.real or count != VALIDATION_IMAGES:
            raise DataError(
                f"{run.folder}: trained on {run.classes} classes of {run.side} pixels"
                f"{' of the small world' if run.small else ''} and {count:,} validation images, expected Tiny ImageNet "
                "(200 of 64, 10,000): only that can be checked against the paper"
            )
    systems = by_system(runs)
    return [row for name, mine in systems.items() for row in _rows(name, mine)], systems


def _rows(name: str, runs: list[Trained]) -> list[Row]:
    expected = SCHEDULES[name].expected if name in SCHEDULES else {}
    rows = [_row(name, figure, value, runs) for figure, value in expected.items()]
    return [_by_either_crop(row, runs) for row in rows] if name.removesuffix("-torch7") in CROP_NOT_NAMED else rows


def _by_either_crop(row: Row, runs: list[Trained]) -> Row:
    """The row, or the same by the centre crop where that alone holds."""
    centre = _row(row.system, row.figure.replace("12-crop", "centre"), row.paper, runs)
    return centre if row.word in ("lower", "higher") and centre.word == "holds" else row


def _row(name: str, figure: str, paper: float, runs: list[Trained]) -> Row:
    if " test " in figure:
        return Row(name, figure, paper, None, None, "not measured: the challenge keeps the test labels")
    bound = figure.startswith("at least ")
    found = spread(runs, "lowest centre top1" if bound else figure)
    if found is None:
        return Row(name, figure, paper, None, None, f"no figure: {', '.join(sorted({run.status for run in runs}))}")
    margin = 0.0 if bound else MARGIN.get(figure) or MARGIN[figure.split(" ")[-1]]
    tolerance = margin + 2 * uncertainty(runs, found, VALIDATION_IMAGES)
    if found.mean < paper - tolerance:
        word = "lower"
    elif bound and any(run.status not in ("done", "diverged") for run in runs):  # what is to come may break it
        return Row(name, figure, paper, None, None, f"no figure: {', '.join(sorted({run.status for run in runs}))}")
    elif found.mean > paper + tolerance and not bound:
        word = "higher"
    else:
        word = "holds"
    return Row(name, figure, paper, found, tolerance, word)


def as_table(rows: list[Row]) -> Table:
    """For the terminal."""
    cells = [(f"{row.system}, {row.figure}", row.paper, row.found, row.tolerance, row.word) for row in rows]
    return Table(
        "These runs and the paper's figures, error in %", ("figure", "paper", "found", "tolerance", "verdict"), cells
    )


def all_hold(rows: list[Row]) -> bool:
    """Whether every row that has a figure holds, and there is one."""
    measured = [row for row in rows if row.found is not None]
    return bool(measured) and all(row.word == "holds" for row in measured)
