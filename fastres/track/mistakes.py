"""What a run gets wrong, as its dashboard and its mirror show it: read from the run's folder of mistakes.

fastres/evaluate/mistake_files.py writes the folder and says what lies in it.
"""

import html
from pathlib import Path

from fastres.machine.errors import DataError
from fastres.track import page
from fastres.track.run_config import read_object

FOLDER, MARK = "mistakes", ".fastres-mistakes"  # in a run's folder; in the folder, whosever it is
FILE, CONFUSIONS, WORST = "mistakes.json", "confusion_matrix.png", "worst_mistakes.png"
SHOWN = 10  # rows; the others are folded
REMEDY = "remove it, or evaluate the run again with --out"


def read_mistakes(run: Path) -> dict | None:
    """What the folder's mistakes.json holds; None where the run has none. DataError where it is damaged."""
    return read_object(run / FOLDER / FILE, REMEDY)


def class_table(found: dict) -> tuple[list[str], list[list]]:
    """Columns and rows: a class a row, the largest errors first."""
    header = ["class", "images", "wrong", "top-1 err %", "+-"]
    order = sorted(found["classes"], key=lambda c: (-(c["top1_err"] or 0.0), -c["images"]))
    return header, [[c["name"], c["images"], c["wrong"], c["top1_err"], c["standard_error"]] for c in order]


def class_errors(run: Path) -> list[tuple[str, int, float | None]]:
    """(name, images, top-1 error in %) of every class, in the order of the labels; no error where it has no image.

    DataError where the run says nothing of its classes, or the file is damaged.
    """
    found = read_mistakes(run)
    if found is None:
        folder = run / FOLDER
        raise DataError(f"{folder / FILE}: no such file; python -m fastres.evaluate {run} --out {folder} writes it")
    try:
        return [
            (c["name"], c["images"], None if c["top1_err"] is None else float(c["top1_err"])) for c in found["classes"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(run, error) from error


def sections(run: Path, label: str) -> list[str]:
    """The dashboard's part on one run: classes, confusions, both pictures; [] where the run has no such folder."""
    found = read_mistakes(run)
    if found is None:
        return []
    try:
        return _sections(found, run, label)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise damaged(run, error) from error


def damaged(run: Path, error: Exception) -> DataError:
    """What is said of a mistakes.json that no evaluation wrote."""
    return DataError(f"{run / FOLDER / FILE}: holds what no evaluation writes ({error!r}); {REMEDY}")


def _sections(found: dict, run: Path, label: str) -> list[str]:
    pairs = [[c["truth"], c["answer"], c["images"], c["share_pct"]] for c in found["confusions"]]
    worst = [
        [w["image"], w["truth"], w["answer"], 100 * w["probability"], *w["by_method"].values()] for w in found["worst"]
    ]
    methods = list(found["worst"][0]["by_method"]) if worst else []
    note = f"{found['method']}, scores combined by {found['combine']}; +- is the binomial standard error."
    parts = [f"<h2>What {html.escape(label)} gets wrong</h2>"]
    parts += _table("By class", *class_table(found), note)
    parts += _table("Who is taken for whom", ["true class", "taken for", "images", "% of the class"], pairs)
    parts += _table("The surest wrong answers", ["image", "true class", "answer", "sure %", *methods], worst)
    for name, alt in ((CONFUSIONS, "confusion matrix"), (WORST, "worst mistakes")):
        file = run / FOLDER / name
        if file.is_file():
            parts.append(page.picture(file.read_bytes(), f"{label}: {alt}"))
    return parts


def _table(title: str, header: list[str], rows: list[list], note: str = "") -> list[str]:
    """The first rows, and behind a fold all of them."""
    if not rows:
        return []
    return [page.folded_table(header, [[_shown(cell) for cell in row] for row in rows], SHOWN, title, note)]


def _shown(value) -> str:
    return "–" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)
