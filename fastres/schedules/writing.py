"""A schedule as the source of a Python file that `train --schedule FILE.py` takes: the inverse of loading.py."""

import dataclasses
from pathlib import Path
from typing import Any

from fastres.machine.files import write_atomic
from fastres.schedules.types import Schedule


def write_schedule(path: Path, schedule: Schedule, note: str) -> Path:
    """Write `schedule` whole and literal, nothing inherited; `note` becomes the file's docstring. Returns `path`."""
    write_atomic(path, as_source(schedule, note).encode())
    return path


def as_source(schedule: Schedule, note: str) -> str:
    """Python source that defines SCHEDULE equal to `schedule`; one line a field, one line a stage."""
    lines = [f"    {field.name}={_field(getattr(schedule, field.name))}," for field in dataclasses.fields(schedule)]
    kinds = ", ".join(sorted(_kinds(schedule)))
    text = note.replace("\\", "\\\\").replace('"""', "'''")
    return "\n".join(
        [
            f'"""{text}\n"""',
            "",
            f"from fastres.schedules.types import {kinds}",
            "",
            "SCHEDULE = Schedule(",
            *lines,
            ")",
            "",
        ]
    )


def _field(value: Any) -> str:
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return "".join(["(", *(f"\n        {_literal(item)}," for item in value), "\n    )"])
    return _literal(value)


def _literal(value: Any) -> str:
    """A dataclass as the call that makes it, without what is its default; anything else as its repr."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    given = (f for f in dataclasses.fields(value) if getattr(value, f.name) != _default(f))
    return f"{type(value).__name__}({', '.join(f'{f.name}={_literal(getattr(value, f.name))}' for f in given)})"


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _kinds(value: Any) -> set[str]:
    """Names of the dataclasses that `value` is made of."""
    if isinstance(value, (tuple, list)):
        return set().union(*map(_kinds, value))
    if not dataclasses.is_dataclass(value):
        return set()
    return {type(value).__name__}.union(*(_kinds(getattr(value, field.name)) for field in dataclasses.fields(value)))
