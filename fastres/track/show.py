"""Runs on one page of HTML that needs no network, no account and no other file.

    python -m fastres show runs/live/paper-s0
    python -m fastres show runs/live/paper-s0 runs/live/paper-s1 --out compare.html
    python -m fastres show runs/live/paper-s0 --watch

Curves with the borders between stages, throughput, the time left, the errors by crop method, what a run gets wrong by
class and by pair, where the runs' configurations differ, and pictures; for a desk or a phone, light or dark. With
--watch the command waits for a run that has not begun and writes the page anew while one is live, and a browser reloads
it by itself.
"""

import argparse
import html
import json
import sys
import time
from datetime import datetime

from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.console import say, say_once, show_kept
from fastres.machine.errors import UsageError
from fastres.machine.files import write_atomic
from fastres.machine.folders import files_of_run, refuse_onto
from fastres.track import mistakes, page
from fastres.track.charts import ERROR, LOSS, error_chart, image_charts, loss_chart
from fastres.track.error_table import side_by_side
from fastres.track.overview import as_cell, overview, stages
from fastres.track.run_config import flatten
from fastres.track.run_view import RunView, read_runs, yet_to_begin

DRAWN_HERE = "error_by_epoch.png"  # the page has the same as a curve
WINDOWS = "Training loss: the mean of each window of steps, on augmented views, so often above the validation loss."


def render(runs: list[RunView], refresh_s: float | None = None) -> str:
    """The page of `runs`; while one is live a browser loads it anew every `refresh_s` seconds."""
    live = [run.label for run in runs if run.live]
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    label = f"{', '.join(live)}: still training; as of {now}" if live else f"as of {now}; none of these is training"
    return page.document(
        f"fastres: {title}",
        label,
        [
            *_mistakes(runs, own=True),
            *overview(runs),
            *_curves(runs),
            *_errors(runs),
            *_mistakes(runs, own=False),
            *_differences(runs),
            *_pictures(runs),
        ],
        refresh_s if live else None,
    )


def _curves(runs: list[RunView]) -> list[str]:
    several = len(runs) > 1
    errors, losses = error_chart(runs), loss_chart(runs)
    figures = [
        page.chart(errors, ERROR, "Strong: top-1. Thin: top-5." if several else "") if errors else "",
        page.chart(losses, LOSS, f"{'Strong: validation. Thin: training. ' if several else ''}{WINDOWS}")
        if losses
        else "",
        *(page.chart(svg, title) for title, svg in image_charts(runs).items()),
    ]
    if not any(figures):
        return ["<h2>Curves</h2>", "<p class=note>Nothing has been measured yet.</p>"]
    return [
        "<h2>Accuracy and throughput</h2>",
        f"<div class=pair>{''.join(figures)}</div>",
        stages(runs),
    ]


def _errors(runs: list[RunView]) -> list[str]:
    """The crop methods of every finished run side by side, with the paper's figures where all have the same."""
    done = [run for run in runs if run.summary.get("errors")]
    if not done:
        return []
    expected = [run.expected for run in done]
    paper = expected[0] if all(each == expected[0] for each in expected) else {}
    header, rows = side_by_side([(run.label, run.summary["errors"]) for run in done], paper)
    rows = [[method, *map(as_cell, cells)] for method, *cells in rows]
    counts = ", ".join(sorted({f"{run.summary['count']:,}" for run in done}))
    sets = sorted({run.summary["dataset"] for run in done if "dataset" in run.summary})
    of_what = f" of {'; '.join(sets)}" if sets else ""
    note = f"Errors in %, on {counts} validation images{of_what}; scores of crops combined by summing e^score."
    return ["<h2>Final errors</h2>", page.table(header, rows, note=note)]


def _mistakes(runs: list[RunView], own: bool) -> list[str]:
    """Of the runs on one's own data, which the page begins with, or of the others."""
    named = {run.label: f"{run.label}, schedule {run.schedule.get('name')}," if own else run.label for run in runs}
    return [part for run in runs if run.own_data == own for part in mistakes.sections(run.path, named[run.label])]


def _differences(runs: list[RunView]) -> list[str]:
    """Settings that are not the same in all runs; of one run all of them, folded."""
    flat = [flatten(run.config) for run in runs]
    names = list(dict.fromkeys(name for each in flat for name in each))
    if len(runs) > 1:
        names = [name for name in names if len({json.dumps(each.get(name, "not set")) for each in flat}) > 1]
    rows = [[name, *(json.dumps(each[name]) if name in each else "not set" for each in flat)] for name in names]
    found = page.table(["setting", *(run.label for run in runs)], rows)
    if len(runs) == 1:
        return ["<h2>Configuration</h2>", f"<details><summary>{len(rows)} settings</summary>{found}</details>"]
    if not rows:
        return ["<h2>Configuration</h2>", "<p class=note>The same in all of these runs.</p>"]
    return ["<h2>Where the configurations differ</h2>", found]


def _pictures(runs: list[RunView]) -> list[str]:
    """Of every run; those of filters, which say the least of how a run goes, come last on the page."""
    files = [(run, file) for run in runs for file in sorted((run.path / "pictures").glob("*.png"))]
    parts = []
    for run, file in sorted(files, key=lambda found: "filters" in found[1].name):
        if file.name != DRAWN_HERE:
            name = f"{run.label}: {file.stem.replace('_', ' ')}"
            parts += [f"<h3>{html.escape(name)}</h3>", page.picture(file.read_bytes(), name)]
    return ["<h2>Pictures</h2>", *parts] if parts else []


DAY_S = 86_400


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("runs", type=place, nargs="+", metavar="RUN", help="run folders, finished or live")
    p.add_argument("--out", type=place, metavar="FILE", help="default: dashboard.html in the first run's folder")
    p.add_argument(
        "--watch", action="store_true", help="wait for the runs, then write the page anew until none is live"
    )
    p.add_argument("--every", type=float, default=10.0, metavar="S", help="seconds between two pages (default 10)")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not 1 <= args.every <= DAY_S:
        raise UsageError(f"--every {args.every:g}: expected 1 to {DAY_S:,} seconds")
    out = args.out or args.runs[0] / "dashboard.html"
    kept = [file for run in args.runs for file in files_of_run(run)]
    refuse_onto("--out", args.out, kept, lambda content: page.GENERATOR.encode() in content)
    shown = False
    try:
        while args.watch and (waiting := [run for run in args.runs if yet_to_begin(run)]):
            say_once(f"{', '.join(map(str, waiting))}: no run has begun here yet; waiting for it, Ctrl-C ends this")
            time.sleep(args.every)
        while True:
            runs = read_runs(args.runs)
            write_atomic(out, render(runs, args.every if args.watch else None).encode())
            if not shown:
                show_kept(str(out), out)
                shown = True
            if not args.watch or not any(run.live for run in runs):
                return 0
            time.sleep(args.every)
    except KeyboardInterrupt:
        say(f"{out}: the page stays as it was written last" if shown else f"{out}: no page was written")
        return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
