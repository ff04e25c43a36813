"""A folder that says what a network gets wrong: tables for a spreadsheet, one JSON object, two pictures; and as text.

errors.csv            an image a row: file, truth, the five likeliest classes with their probabilities
classes.csv           a class a row: images, wrong ones, error in %, its standard error
confusions.csv        truth, answer, images, share of the truth's images in %: the commonest first
mistakes.json         the same without the single images, and the worst mistakes
confusion_matrix.png  who is taken for whom, classes ordered by average linkage
worst_mistakes.png    the surest wrong answers, with what each crop method says; shows images of the data
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fastres.data.batch import Split
from fastres.evaluate.answers import PROBABLE, as_csv, columns, row
from fastres.evaluate.confusions import block_order
from fastres.evaluate.mistakes import Mistakes
from fastres.machine.console import table
from fastres.machine.errors import UsageError
from fastres.machine.files import write_atomic
from fastres.machine.folders import claim
from fastres.track.answer_pictures import Panel, answer_lines, answer_sheet, confusion_matrix
from fastres.track.mistakes import CONFUSIONS, FILE, MARK, WORST
from fastres.track.run_config import as_json

FIRST = ("image", "truth")
SHOWN = 10  # rows of a table on the terminal


def claim_mistakes(folder: Path, how: str) -> None:
    """Make `folder` ours. UsageError where it holds anything else, or where `how` gives no probabilities."""
    if how not in PROBABLE:
        raise UsageError(f"--combine {how}: gives no probabilities to write; expected one of {', '.join(PROBABLE)}")
    claim(folder, MARK, "a folder of mistakes that this command wrote")


def write_mistakes(folder: Path, found: Mistakes, data: Split) -> list[Path]:
    """Write everything into a claimed folder; `data` is the split that was answered. Returns the pictures' paths."""
    per_class, confusions = found.by_class(), found.confusions()
    rows = (
        row((found.files[i], found.words[found.labels[i]]), found.words, found.classes[i], found.probabilities[i])
        for i in range(len(found.labels))
    )
    write_atomic(folder / "errors.csv", as_csv([columns(FIRST, found.classes.shape[1]), *rows]))
    write_atomic(
        folder / "classes.csv", _as_csv(per_class, ("class", "name", "images", "wrong", "top1_err", "standard_error"))
    )
    write_atomic(folder / "confusions.csv", _as_csv(confusions, ("truth", "answer", "images", "share_pct")))
    write_atomic(folder / FILE, as_json(found.plain()))
    order = block_order(found.counts)
    names = [found.words[c] for c in order]
    drawn = [confusion_matrix(found.counts[np.ix_(order, order)], names, folder / CONFUSIONS)]
    (folder / WORST).unlink(missing_ok=True)  # an earlier evaluation's, where this one found no mistake
    if found.worst:
        images = data.pixels(torch.tensor(found.worst, device=data.device)).cpu().numpy()
        drawn.append(answer_sheet(_panels(found, images), folder / WORST))
    return drawn


def _as_csv(rows: Sequence[dict], header: Sequence[str]) -> bytes:
    def cell(value):
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else value

    return as_csv([header, *([cell(each[name]) for name in header] for each in rows)])


def _panels(found: Mistakes, images: np.ndarray) -> list[Panel]:
    panels = []
    for image, worst in zip(images, found.worst_images(), strict=True):
        sure = (f"{100 * worst['probability']:.1f} % sure: {worst['answer']}", None)
        lines = [sure, *answer_lines(worst["by_method"], worst["truth"]), (worst["image"], None)]
        panels.append(Panel(image, worst["truth"], lines))
    return panels


def as_text(found: dict) -> str:
    """For the terminal: the classes with the largest errors and the commonest confusions, of what `plain` returned."""
    classes = sorted((c for c in found["classes"] if c["wrong"]), key=lambda c: (-c["top1_err"], -c["images"]))
    if not classes:
        return "no image is answered wrongly"
    cells = [[c["name"], c["images"], c["wrong"], c["top1_err"], c["standard_error"]] for c in classes[:SHOWN]]
    pairs = [[c["truth"], c["answer"], c["images"], c["share_pct"]] for c in found["confusions"][:SHOWN]]
    return "\n\n".join(
        [
            table(cells, ["class (largest errors)", "images", "wrong", "top-1 err %", "+-"]),
            table(pairs, ["true class", "taken for", "images", "% of the class"]),
        ]
    )
