"""The rows of a CSV that names images, each checked by itself; table.py says what they are."""

import codecs
import csv
import errno
import io
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fastres.machine.errors import DataError, MachineError
from fastres.machine.files import read_regular
from preprocess.sources.listing import flaw, nfc, nfd
from preprocess.sources.tree import split_of

COLUMNS = {"file": ("file", "filename", "path", "image"), "label": ("label", "class"), "split": ("split",)}
DELIMITERS = ("\t", ";", ",")
PROBED = 1_000  # rows that a delimiter is judged by
NO_SUCH = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class Row(NamedTuple):
    """One image: the line that its row begins in, its path below the CSV's folder, its label ("" in test), its split"""

    line: int
    path: str
    label: str
    split: str


def read_rows(table: Path) -> list[Row]:
    """Every row, in the file's order. DataError, with the line, for the first that is not as described above."""
    rows: list[Row] = []
    line_of: dict[str, int] = {}
    columns: list[str] | None = None
    text = _text(table)
    for line, fields in _records(table, text, _delimiter(text)):
        if columns is None:
            columns, is_header = _columns(table, line, fields)
            if is_header:
                continue
        if len(fields) != len(columns):
            raise fault(table, line, f"has {len(fields)} fields", f"{len(columns)} as before it", "mend the line")
        row = _row(table, line, dict(zip(columns, fields, strict=True)))
        if row.path in line_of:
            raise fault(
                table, line, f"names {row.path} again after line {line_of[row.path]}", "one row an image", "keep one"
            )
        line_of[row.path] = line
        rows.append(row)
    return rows


def _text(table: Path) -> str:
    try:
        data = read_regular(table)
    except OSError as error:
        raise MachineError(f"{table}: cannot be read ({error.strerror}); check its permissions") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _delimiter(text: str) -> str:
    """The one under which the first line is a header, else the one that gives most rows two or three fields."""
    good = {}
    for delimiter in DELIMITERS:
        good[delimiter] = 0
        try:
            for fields in islice(_reader(text, delimiter), PROBED):
                if _named(fields):
                    return delimiter
                good[delimiter] += 2 <= len(fields) <= len(COLUMNS)
        except csv.Error:  # said with its line when all are read
            continue
    return max(DELIMITERS, key=lambda delimiter: (good[delimiter], text.count(delimiter)))


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)


def _records(table: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line that it begins in."""
    reader, line = _reader(text, delimiter), 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise fault(
            table, line, f"is no row of a CSV ({error})", "quotes in pairs around short texts", "mend it"
        ) from None


def _columns(table: Path, line: int, fields: list[str]) -> tuple[list[str], bool]:
    """The columns' names in their order, and whether the first line is where they stand."""
    if named := _named(fields):
        if "" in named or len(set(named)) < len(named):
            shown = ", ".join(fields)
            raise fault(table, line, f"names the columns {shown}", "file, label and perhaps split", "take others out")
        return named, True
    if not 2 <= len(fields) <= len(COLUMNS):
        raise fault(table, line, f"has {len(fields)} fields", "file, label and perhaps split", "mend the line")
    return list(COLUMNS)[: len(fields)], False


def _named(fields: list[str]) -> list[str]:
    """A header's columns as COLUMNS calls them, "" for what it does not know; [] for a line that is none."""
    said = [field.strip().casefold() for field in fields]
    known = [next((column for column, names in COLUMNS.items() if name in names), "") for name in said]
    return known if {"file", "label"} <= set(known) else []


def _row(table: Path, line: int, fields: dict[str, str]) -> Row:
    said = fields.get("split", "train").strip()
    split = split_of(said)
    if split is None:
        raise fault(table, line, f"has the split {said!r}", "train, val or test", "mend the line")
    label = nfc(fields["label"].strip())
    if not label and split != "test":
        raise fault(table, line, f"has no label for {fields['file']}", "one", "give it one, or take the row out")
    if what := flaw(label):
        raise fault(table, line, f"has the label {label!r} with {what}", "one line of text", "mend the label")
    return Row(line, _path(table, line, fields["file"]), label, split)


def _path(table: Path, line: int, said: str) -> str:
    """The image's path below the CSV's folder, as the disk spells it: with "/", its accents composed or not."""
    plain = said.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or plain.split("/")[0].endswith(":"):
        raise fault(
            table, line, f"names {said!r}, which may lead out of the CSV's folder", "a path below it",
            "put the CSV above the images and name them from there",
        )  # fmt: skip
    spellings = [form for name in (said, plain, said.strip()) for form in (name, nfc(name), nfd(name))]
    if said.isascii() is False and all(letter <= "\xff" for letter in said):
        spellings.append(os.fsdecode(said.encode("latin-1")))  # a CSV in Latin-1 beside a disk of such names
    for spelling in dict.fromkeys(spellings):
        path = "/".join(part for part in spelling.split("/") if part not in ("", "."))
        mode = _mode(table.parent / path)
        if mode is None or not path:
            continue
        if stat.S_ISDIR(mode):
            raise fault(table, line, f"names {said!r}, which is a folder", "an image", "name the files in it")
        if what := flaw(path):
            raise fault(table, line, f"names {path!r} with {what}", "one line of text", "rename the file")
        return path
    where = table.parent.absolute()
    raise fault(table, line, f"names {said!r}, which is not in {where}", "an image there", "mend or remove the line")


def _mode(path: Path) -> int | None:
    """What kind of file lies there, 0 where that cannot be told (the decoder will say why), None for nothing."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        return None if error.errno in NO_SUCH else 0
    except ValueError:  # a NUL in it
        return None


def fault(table: Path, line: int, found: str, expected: str, remedy: str) -> DataError:
    return DataError(f"{table}: line {line} {found}, expected {expected}; {remedy}")
