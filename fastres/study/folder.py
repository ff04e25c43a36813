"""A study's folder: report.html, study.json and pictures; runs/, schedules/ and output/ of those that it trains."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastres.machine.errors import DataError, UsageError
from fastres.machine.folders import claim
from fastres.machine.lock import Lock
from fastres.track.run_config import read_object

MARK = ".study"


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """While one study trains in its folder: UsageError where another process does, which would start its runs too."""
    lock = Lock(out / MARK, wait=False)
    if not lock.held:
        raise UsageError(f"{out}: another study trains in this folder; wait for it, or choose another --out")
    try:
        yield
    finally:
        lock.release()


def claim_folder(out: Path) -> None:
    """Make the study's folder. UsageError where it holds something and is no study's."""

    def was_ours() -> bool:
        """By what a study of an older version left, finished or not."""
        try:
            written = read_object(out / "study.json", "")
        except DataError:
            return False
        return {"tables", "verdicts"} <= (written or {}).keys() or any(out.glob("runs/*/config.json"))

    claim(out, MARK, "a study's folder", was_ours)
