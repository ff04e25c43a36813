"""Where runs stand, as tables: a fact a row and a run a column, then a stage a row."""

import html
import statistics
from itertools import groupby

from fastres.track import page
from fastres.track.run_view import RunView
from fastres.track.time_left import in_words, seconds_left

OVERVIEW = (
    "schedule",
    "seed",
    "status",
    "where",
    "time left",
    "val top-1 err %",
    "best",
    "12-crop",
    "img/s",
    "device",
)
TIME_LEFT = (
    "time left: training and validation at the speeds measured so far, stages that have not begun by their arithmetic; "
    "the twelve views at the end come on top"
)
STAGE_COLUMNS = (
    "run",
    "stage",
    "epochs",
    "train s",
    "img/s",
    "waiting for data %",
    "val top-1 err %",
    "val top-5 err %",
)


def overview(runs: list[RunView]) -> list[str]:
    """A fact a row and a run a column: of one run it fits a phone."""
    facts = {label: [] for label in OVERVIEW}
    for run in runs:
        errors = [e["val_top1_err"] for e in run.epochs if e["val_top1_err"] is not None]
        twelve = run.summary.get("errors", {}).get("expsum", {}).get("12-crop", {}).get("top1")
        speeds = [point["img_per_s"] for point in run.points if point.get("img_per_s")]
        devices = [record.get("device", "") for record in run.records if record["event"] == "start"]
        left = in_words(seconds_left(run))
        cells = [
            run.schedule.get("name"),
            run.config.get("seed"),
            run.status,
            run.position,
            left if run.live or left is None else f"{left}, once it goes on",
            errors[-1] if errors else None,
            min(errors, default=None),
            twelve,
            round(speeds[-1]) if speeds else None,
            devices[-1] if devices else None,
        ]
        for fact, cell in zip(facts.values(), cells, strict=True):
            fact.append(as_cell(cell))
    rows = [[fact, *cells] for fact, cells in facts.items()]
    faults = [
        f"<p class=disagrees>{html.escape(run.label)}: {html.escape(str(run.summary['error']))}</p>"
        for run in runs
        if not run.live and "error" in run.summary
    ]
    note = TIME_LEFT if any(seconds_left(run) is not None for run in runs) else ""
    return ["<h2>Runs</h2>", page.table(["", *(run.label for run in runs)], rows, note=note), *faults]


def stages(runs: list[RunView]) -> str:
    """The stages of every run so far."""
    rows = [[as_cell(cell) for cell in (run.label, *row)] for run in runs for row in _stage_rows(run)]
    return page.table(STAGE_COLUMNS, rows, "By stage", "img/s: median over the stage's epochs")


def _stage_rows(run: RunView) -> list[tuple]:
    """A stage a row, from the epochs so far, so that a live run has them too."""
    rows = []
    for _, epochs in groupby(run.epochs, key=lambda record: record["stage"]):  # two stages may have one name
        mine = list(epochs)
        train_s, wait_s = sum(e["train_s"] for e in mine), sum(e.get("wait_s", 0.0) for e in mine)
        wait = 100 * wait_s / train_s if train_s and "wait_s" in mine[-1] else None
        rows.append(
            (
                mine[-1]["stage_name"],
                len(mine),
                round(train_s, 1),
                round(statistics.median(e["img_per_s"] for e in mine)),
                wait,
                mine[-1]["val_top1_err"],
                mine[-1]["val_top5_err"],
            )
        )
    return rows


def as_cell(value) -> str:
    """A float with two decimals, None as –."""
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
