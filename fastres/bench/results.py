"""runs/results.csv: one row a recorded run, and the table that README makes of them."""

import csv
import io
import statistics
from pathlib import Path

from fastres.machine.errors import DataError
from fastres.machine.files import read_regular, write_atomic

COLUMNS = (
    "date", "commit", "schedule", "engine", "seed", "device", "precision", "torch", "triton", "train_s", "cold_s",
    "eval_s", "pack_s", "img_per_s",
    *(f"{k}_err_{m}" for m in ("full", "centre", "10-crop", "12-crop") for k in ("top1", "top5")),
)  # fmt: skip


def add_rows(path: Path, result: dict) -> None:
    """Append one row a seed to results.csv. Rows from before a column was added have nothing in it. DataError where the
    file has a column that is none of ours: it is somebody else's, and stays as it is."""
    machine = result["machine"]
    reader = csv.DictReader(read_regular(path).decode().splitlines() if path.exists() else [])
    if others := set(reader.fieldnames or ()).difference(COLUMNS):
        raise DataError(
            f"{path}: has columns that are not of our results ({', '.join(sorted(others)[:3])}), so no row was added; "
            "give --record another folder"
        )
    earlier = list(reader)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(earlier)
    for summary in result["rows"]:
        images = sum(stage["img_per_s"] * stage["train_s"] for stage in summary["stages"])
        errors = {
            f"{k}_err_{method}": round(figures[k], 3)
            for method, figures in summary["errors"]["expsum"].items()
            for k in ("top1", "top5")
        }
        writer.writerow(
            {
                **{column: summary.get(column) for column in COLUMNS},
                **errors,
                "date": machine["date"],
                "commit": machine["commit"],
                "triton": machine["libraries"]["triton"],
                "img_per_s": round(images / summary["train_s"]),
                **{name: round(summary[name], 1) for name in ("train_s", "cold_s", "eval_s")},
                "pack_s": "" if summary["pack_s"] is None else round(summary["pack_s"], 1),
            }
        )
    write_atomic(path, file.getvalue().encode())


def readme_table(path: Path) -> str:
    """The README's results: one row a schedule, engine, machine, precision and commit; mean and spread over seeds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("date", "commit", "schedule", "engine", "device", "precision")
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    lines = [
        "| schedule | machine | seeds | val top-1 err %, 12-crop | centre | top-5 12-crop | train s | cold s | img/s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (date, commit, schedule, engine, device, precision), group in groups.items():
        cells = [_spread(group, column) for column in ("top1_err_12-crop", "top1_err_centre", "top5_err_12-crop")]
        cells += [f"{_mean(group, column):,.0f}" for column in ("train_s", "cold_s", "img_per_s")]
        where = f"{device}, {'' if engine == 'resident' else engine + ', '}{precision}, {date}, {commit}"
        lines.append(f"| `{schedule}` | {where} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(group: list[dict], column: str) -> float:
    return statistics.mean(float(row[column]) for row in group)


def _spread(group: list[dict], column: str) -> str:
    spread = statistics.stdev(float(row[column]) for row in group) if len(group) > 1 else None
    return f"{_mean(group, column):.1f}" + ("" if spread is None else f" ± {spread:.1f}")
