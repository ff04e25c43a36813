"""What the tests marked `fault` did: `pytest -m fault --record-faults` writes faults.json.

A later record replaces what it ran and keeps the rest, so that a single test can be recorded again.
"""

import json
import os
import platform
from datetime import date
from pathlib import Path

import torch

from fastres.machine.facts import processor

FILE = Path(__file__).with_name("faults.json")
_seen: dict[str, dict] = {}


def add_option(parser) -> None:
    parser.addoption("--record-faults", action="store_true", help=f"write what tests marked `fault` did to {FILE.name}")


def note_marks(items: list) -> None:
    """Let the reports know which faults a test is about."""
    for item in items:
        marks = [(mark.args[0], bool(mark.kwargs.get("by_hand"))) for mark in item.iter_markers("fault")]
        if marks:
            item.user_properties.append(("faults", marks))


def note_report(report) -> None:
    """Count a test's end: its call, or a set-up that skipped or failed."""
    marks = dict(report.user_properties).get("faults")
    if not marks or (report.when != "call" and report.passed):
        return
    path, _, case = report.nodeid.partition("::")
    entry = _seen.setdefault(
        f"{Path(path).stem}::{case.partition('[')[0]}",
        {
            "faults": sorted(number for number, _ in marks),
            "by_hand": any(by_hand for _, by_hand in marks),
            "passed": 0,
            "failed": 0,
            "skipped": 0,
            "reason": "",
            "date": date.today().isoformat(),
        },
    )
    entry[report.outcome] += 1
    if report.skipped:
        entry["reason"] = report.longrepr[2].removeprefix("Skipped: ")


def write(file: Path = FILE) -> None:
    """Merge what was seen into the file."""
    if not _seen:
        return
    tests = json.loads(file.read_text())["tests"] if file.exists() else {}
    content = {"machine": machine(), "tests": dict(sorted((tests | _seen).items()))}
    file.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict:
    """Where the last record was made."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
