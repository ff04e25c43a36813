"""log.jsonl: one JSON object a line, appended as things happen; with summary.json the truth about a run.

A record is whole or absent: each is handed to the kernel in one write, so a killed process leaves at most one
torn line at the end, and the next `JsonLines` on that file cuts it off. Numbers that are not finite become
null, because NaN is not JSON and would stop every strict reader of the file.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fastres.machine.errors import DataError, MachineError
from fastres.machine.files import ours, read_regular, write_atomic
from fastres.machine.strict_json import plain


class JsonLines:
    """Appends records to `path`; opening repairs what a killed process left.

    Raises MachineError where the file cannot be opened or the disk is full, DataError where a line before the
    last is not JSON.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        _cut_torn_end(self.path)
        try:
            self._file = self._opened()
        except OSError as error:
            raise MachineError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --run-dir"
            ) from error

    def _opened(self) -> IO[bytes]:
        return open(self.path, "ab", buffering=0, opener=ours)  # unbuffered: survives a SIGKILL

    def write(self, event: str, **fields) -> dict:
        """Append {"event", "time" (UTC, ISO 8601), **fields}; scalars of numpy and torch become numbers. Returns it."""
        record = plain({"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields})
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise MachineError(
                f"{self.path}: could not append ({error.strerror}); free some space, and the same command resumes"
            ) from error
        if written != len(line):
            raise MachineError(
                f"{self.path}: {written} of {len(line)} bytes could be appended, the disk is "
                f"full; free some space, and the same command resumes"
            )
        return record

    def rewind_to(self, keep: Callable[[dict], bool]) -> int:
        """Drop every record that `keep` refuses, atomically; returns how many.

        A run that resumes from the checkpoint of epoch k repeats what came after it: dropping those records
        first makes each epoch appear once.
        """
        records = read_log(self.path)
        kept = [record for record in records if keep(record)]
        if len(kept) < len(records):
            self._replace(kept)
        return len(records) - len(kept)

    def restore(self, epochs: list[dict]) -> int:
        """Make the file's records of epochs these, atomically; returns how many of them it did not have.

        For a log that was lost, cut or edited: `epochs` are known from elsewhere.
        """
        records = read_log(self.path)
        found = [record for record in records if record["event"] == "epoch"]
        if found != epochs:
            others = (record for record in records if record["event"] != "epoch")
            # each before what was logged where it ended, such as the next stage's beginning
            self._replace(sorted([*epochs, *others], key=lambda record: record.get("at", [0, 0, 0])))
        return sum(record not in found for record in epochs)

    def _replace(self, records: list[dict]) -> None:
        self._file.close()
        write_atomic(self.path, b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self._file = self._opened()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()


class NoLines:
    """The log of a process whose records another one writes."""

    def write(self, event: str, **fields) -> dict:
        return {"event": event, **fields}

    def rewind_to(self, keep: Callable[[dict], bool]) -> int:
        return 0

    def restore(self, epochs: list[dict]) -> int:
        return 0

    def close(self) -> None: ...


def read_log(path: Path) -> list[dict]:
    """Every record of a log, oldest first; [] where there is none. A torn last line is left out."""
    try:
        lines = read_regular(path).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected a run's log; restore the file") from None
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline: nothing, or a torn line
        record = _parsed(line)
        if record is None and number == len(lines) - 1:
            break
        if record is None:
            raise DataError(
                f"{path}: line {number} is not a run's record, and only the last line may be torn; "
                f"restore the file, or remove that line"
            )
        records.append(record)
    return records


def _parsed(line: bytes) -> dict | None:
    """None where the line is none of a run's records, each with its event and where the run stood."""
    try:
        record = json.loads(line)
        at = record.get("at", [0, 0, 0])
        whole = isinstance(record["event"], str) and len(at) == 3 and all(type(number) is int for number in at)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if whole else None


def _cut_torn_end(path: Path) -> None:
    """Truncate `path` after its last whole record: a kill can leave half a line, a power cut one of zeros."""
    try:
        with open(path, "r+b", opener=ours) as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
            if end and _parsed(content[start:end]) is None:
                end = start
            if end < len(content):
                file.truncate(end)
    except FileNotFoundError:
        return
    except OSError as error:
        raise MachineError(f"{path}: cannot be opened ({error.strerror}); choose another --run-dir") from error
