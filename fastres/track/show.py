"""Runs on one page of HTML that needs no network, no account and no other file.

    python -m fastres.track.show runs/live/paper-s0
    python -m fastres.track.show runs/live/paper-s0 runs/live/paper-s1 --out compare.html
    python -m fastres.track.show runs/live/paper-s0 --watch

Curves with the borders between stages, throughput, the errors by crop method, pictures, and where the runs'
configurations differ. With --watch the file is written anew while a run is live, and a browser reloads it by itself.
"""

import argparse
import html
import json
import sys
import time
from datetime import datetime
from pathlib import Path

from fastres.errors import UsageError, run_command
from fastres.files import write_atomic
from fastres.track import page
from fastres.track.charts import error_chart, image_charts
from fastres.track.console import say
from fastres.track.run_dir import flatten
from fastres.track.run_view import RunView, read_runs

DRAWN_HERE = "error_by_epoch.png"  # the page has the same as a curve
STAGE_COLUMNS = ("run", "stage", "epochs", "train s", "img/s", "waiting for data %", "val top-1 err %",
                 "val top-5 err %")  # fmt: skip


def render(runs: list[RunView], refresh_s: float | None = None) -> str:
    """The page of `runs`; while one is live a browser loads it anew every `refresh_s` seconds."""
    live = [run.label for run in runs if run.live]
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    label = f"{', '.join(live)}: still training; as of {now}" if live else f"as of {now}; none of these is training"
    return page.document(f"fastres: {title}", label, [*_overview(runs), *_curves(runs), *_errors(runs),
                         *_differences(runs), *_pictures(runs)], refresh_s if live else None)  # fmt: skip


def _overview(runs: list[RunView]) -> list[str]:
    header = ["run", "schedule", "seed", "status", "where", "val top-1 err %", "best", "12-crop", "img/s", "device"]
    rows = []
    for run in runs:
        errors = [e["val_top1_err"] for e in run.epochs if e["val_top1_err"] is not None]
        twelve = run.summary.get("errors", {}).get("expsum", {}).get("12-crop", {}).get("top1")
        speeds = [point["img_per_s"] for point in run.points if point.get("img_per_s")]
        devices = [record.get("device", "") for record in run.records if record["event"] == "start"]
        cells = [run.label, run.schedule.get("name"), run.config.get("seed"), run.status, run.position,
                 errors[-1] if errors else None, min(errors, default=None), twelve,
                 round(speeds[-1]) if speeds else None, devices[-1] if devices else None]  # fmt: skip
        rows.append([_shown(cell) for cell in cells])
    faults = [f"<p class=disagrees>{html.escape(run.label)}: {html.escape(str(run.summary['error']))}</p>"
              for run in runs if not run.live and "error" in run.summary]  # fmt: skip
    return ["<h2>Runs</h2>", page.table(header, rows), *faults]


def _curves(runs: list[RunView]) -> list[str]:
    errors, charts = error_chart(runs), image_charts(runs)
    if errors is None and not charts:
        return ["<h2>Curves</h2>", "<p class=note>Nothing has been measured yet.</p>"]
    parts = ["<h2>Accuracy and throughput</h2>"]
    if errors is not None:
        parts.append(page.picture(errors, "validation error by epoch", "svg"))
    small = "".join(page.picture(content, title, "svg") for title, content in charts.items())
    parts.append(f"<div class=pair>{small}</div>")
    rows = [[_shown(cell) for cell in (run.label, *row)] for run in runs for row in _stage_rows(run)]
    return [*parts, page.table(STAGE_COLUMNS, rows, "By stage", "img/s: median over the stage's epochs")]


def _stage_rows(run: RunView) -> list[tuple]:
    """A stage a row, from the epochs so far, so that a live run has them too."""
    rows = []
    for border in run.borders():
        mine = [epoch for epoch in run.epochs if epoch["stage_name"] == border.name]
        train_s, wait_s = sum(e["train_s"] for e in mine), sum(e.get("wait_s", 0.0) for e in mine)
        speeds = sorted(e["img_per_s"] for e in mine)
        wait = 100 * wait_s / train_s if train_s and "wait_s" in mine[-1] else None
        rows.append((border.name, len(mine), round(train_s, 1), round(speeds[len(speeds) // 2]), wait,
                     mine[-1]["val_top1_err"], mine[-1]["val_top5_err"]))  # fmt: skip
    return rows


def _errors(runs: list[RunView]) -> list[str]:
    """The crop methods of every finished run side by side, with the paper's figures where all have the same."""
    done = [run for run in runs if run.summary.get("errors")]
    if not done:
        return []
    expected = [run.schedule.get("expected") or {} for run in done]
    paper = expected[0] if all(each == expected[0] for each in expected) else {}
    header = ["crop method", *(f"{run.label} top-{k}" for run in done for k in (1, 5))]
    header += ["paper top-1", "paper top-5"] if paper else []
    rows = []
    for method in done[0].summary["errors"]["expsum"]:
        cells = [run.summary["errors"]["expsum"][method][top] for run in done for top in ("top1", "top5")]
        cells += [paper.get(f"{method} {top}") for top in ("top1", "top5")] if paper else []
        rows.append([method, *map(_shown, cells)])
    counts = ", ".join(sorted({f"{run.summary['count']:,}" for run in done}))
    note = f"Errors in %, on {counts} validation images; scores of crops combined by summing e^score."
    return ["<h2>Final errors</h2>", page.table(header, rows, note=note)]


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
    parts = []
    for run in runs:
        for file in sorted((run.path / "pictures").glob("*.png")):
            if file.name != DRAWN_HERE:
                name = f"{run.label}: {file.stem.replace('_', ' ')}"
                parts += [f"<h3>{html.escape(name)}</h3>", page.picture(file.read_bytes(), name)]
    return ["<h2>Pictures</h2>", *parts] if parts else []


def _shown(value) -> str:
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.track.show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, finished or live")
    p.add_argument("--out", type=Path, metavar="FILE", help="default: dashboard.html in the first run's folder")
    p.add_argument("--watch", action="store_true", help="write the page anew until no run is live")
    p.add_argument("--every", type=float, default=10.0, metavar="S", help="seconds between two pages (default 10)")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.every < 1:
        raise UsageError(f"--every {args.every:g}: expected 1 second or more")
    out = args.out or args.runs[0] / "dashboard.html"
    said = False
    while True:
        runs = read_runs(args.runs)
        write_atomic(out, render(runs, args.every if args.watch else None).encode())
        if not said:
            print(out, flush=True)
            said = True
        if not args.watch or not any(run.live for run in runs):
            return 0
        try:
            time.sleep(args.every)
        except KeyboardInterrupt:
            say(f"{out}: the page stays as it was written last")
            return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
