"""log.jsonl: one JSON object a line, appended as things happen; with summary.json the truth about a run.

A record is whole or absent: each is handed to the kernel in one write, so a killed process leaves at most one
torn line at the end, and the next `JsonLines` on that file cuts it off. Numbers that are not finite become
null, because NaN is not JSON and would stop every strict reader of the file.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fastres.errors import DataError, MachineError
from fastres.files import write_atomic


class JsonLines:
    """Appends records to `path`; opening repairs what a killed process left.

    Raises MachineError where the file cannot be opened or the disk is full, DataError where a line before the
    last is not JSON.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        _cut_torn_end(self.path)
        try:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (unbuffered: survives a SIGKILL)
        except OSError as error:
            raise MachineError(f"{self.path}: cannot be written ({error.strerror}); choose another "
                               f"--run-dir") from error

    def write(self, event: str, **fields) -> None:
        """Append {"event", "time" (UTC, ISO 8601), **fields}; scalars of numpy and torch become numbers."""
        record = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        line = json.dumps(plain(record), allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise MachineError(f"{self.path}: could not append ({error.strerror}); free some space, "
                               f"and the same command resumes") from error
        if written != len(line):
            raise MachineError(f"{self.path}: {written} of {len(line)} bytes could be appended, the disk is "
                               f"full; free some space, and the same command resumes")

    def rewind_to(self, keep: Callable[[dict], bool]) -> int:
        """Drop every record that `keep` refuses, atomically; returns how many.

        A run that resumes from the checkpoint of epoch k repeats what came after it: dropping those records
        first makes each epoch appear once.
        """
        records = read_log(self.path)
        kept = [record for record in records if keep(record)]
        if len(kept) < len(records):
            self._file.close()
            write_atomic(self.path, b"".join(json.dumps(record).encode() + b"\n" for record in kept))
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        return len(records) - len(kept)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()


class NoLines:
    """The log of a process whose records another one writes."""

    def write(self, event: str, **fields) -> None: ...

    def rewind_to(self, keep: Callable[[dict], bool]) -> int:
        return 0

    def close(self) -> None: ...


def read_log(path: Path) -> list[dict]:
    """Every record of a log, oldest first; [] where there is none. A torn last line is left out."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline: nothing, or a torn line
        record = _parsed(line)
        if record is None and number == len(lines) - 1:
            break
        if record is None:
            raise DataError(f"{path}: line {number} is not a JSON object, and only the last line may be torn; "
                            f"restore the file, or remove that line")
        records.append(record)
    return records


def plain(value):
    """`value` as JSON can carry it: finite numbers, text, booleans, null, lists, dicts with text keys."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return plain(value.tolist())
    return str(value)


def _parsed(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _cut_torn_end(path: Path) -> None:
    """Truncate `path` after its last whole record: a kill can leave half a line, a power cut one of zeros."""
    try:
        with open(path, "r+b") as file:
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
