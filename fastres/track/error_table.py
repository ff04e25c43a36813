"""Errors by crop method as a table: of one run on a terminal, of every combination for W&B, of several runs on a page.

`errors` is what a summary holds, {combination: {method: {"top1": %, "top5": %}}}; `expected` what the paper reports,
{"12-crop top1": %, ...}, whose crops are combined by expsum.
"""

import math
from collections.abc import Mapping, Sequence

from fastres.machine.console import table

TOPS = {"top1": "top-1", "top5": "top-5"}
PAPERS = "expsum"  # the paper's way to combine crops


def format_errors(
    errors: dict, how: str, count: int, expected: Mapping[str, float] | None = None, split: str = "val"
) -> str:
    """Table 1's layout: crop methods down, top-1 and top-5 error in % across, the paper's figures beside them.

    `count`: the images behind the errors, for their standard error; `split`: the one they are of.
    """
    header = ["crop method", f"{split} top-1 err %", "+-", f"{split} top-5 err %", *_paper_columns(expected)]
    rows = [
        [method, e["top1"], standard_error(e["top1"], count), e["top5"], *_paper_cells(expected, method)]
        for method, e in errors[how].items()
    ]
    return table(rows, header)


def every_combination(errors: dict, expected: Mapping[str, float]) -> tuple[list[str], list[list]]:
    """Columns and rows: each way to combine the crops' scores, each crop method, errors in %, the paper's if any."""
    columns = ["combined by", "crop method", "val top-1 err %", "val top-5 err %", *_paper_columns(expected)]
    rows = [
        [how, method, e["top1"], e["top5"], *(_paper_cells(expected, method) if how == PAPERS else ())]
        for how, methods in errors.items()
        for method, e in methods.items()
    ]
    return columns, [row + [None] * (len(columns) - len(row)) for row in rows]


def side_by_side(runs: Sequence[tuple[str, dict]], expected: Mapping[str, float]) -> tuple[list[str], list[list]]:
    """Columns and rows: a crop method a row, for each (label, errors) its two errors in %, then the paper's."""
    columns = ["crop method", *(f"{label} {top}" for label, _ in runs for top in TOPS.values())]
    rows = [
        [
            method,
            *(errors[PAPERS][method][top] for _, errors in runs for top in TOPS),
            *_paper_cells(expected, method),
        ]
        for method in runs[0][1][PAPERS]
    ]
    return [*columns, *_paper_columns(expected)], rows


def _paper_columns(expected: Mapping[str, float] | None) -> list[str]:
    return [f"paper {top}" for top in TOPS.values()] if expected else []


def _paper_cells(expected: Mapping[str, float] | None, method: str) -> list[float | None]:
    return [expected.get(f"{method} {top}") for top in TOPS] if expected else []


def standard_error(error: float, count: int) -> float:
    """Binomial standard error in points of an error in % measured on `count` images.

    As if two more were wrong and two more right (Agresti and Coull 1998), which tells on a few images alone: none wrong
    of three does not mean that none ever is.
    """
    p = (error / 100.0 * count + 2) / (count + 4)
    return 100.0 * math.sqrt(p * (1.0 - p) / (count + 4))
