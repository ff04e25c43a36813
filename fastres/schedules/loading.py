"""From what a user types to a checked Schedule: a name or a .py file, then `--set a.b=c` overrides; what two share."""

import dataclasses
import difflib
import json
import runpy
import sys
import types
import typing
from pathlib import Path
from typing import Any

from fastres.machine.errors import FastresError, UsageError
from fastres.schedules import SCHEDULES
from fastres.schedules import types as schedule_types
from fastres.schedules.types import LR_POLICIES, Schedule

sys.modules.setdefault("fastres.schedule_types", schedule_types)  # its name once, by which users' files import it

# One name for several settings: --set views.jitter=0.2 is the strength of all three.
GROUPS = {"views.jitter": ("views.brightness", "views.contrast", "views.saturation")}


def load_schedule(name: str) -> Schedule:
    """A schedule of fastres/schedules by its name, or SCHEDULE of the Python file at a path. UsageError otherwise."""
    if name in SCHEDULES:
        return SCHEDULES[name]
    if name.endswith(".py"):
        return _from_file(Path(name))
    known = ", ".join([*SCHEDULES, "or a path to a .py file"])
    raise UsageError(f"schedule {name!r} is not known{_nearest(name, SCHEDULES)}; known: {known}")


def _from_file(path: Path) -> Schedule:
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise UsageError(f"schedule file {path} {what}; known names: {', '.join(SCHEDULES)}")
    try:
        schedule = runpy.run_path(str(path)).get("SCHEDULE")
    except FastresError:
        raise
    except (Exception, SystemExit) as error:  # the user's own file: say where it broke, in one sentence
        raise UsageError(f"schedule file {path} does not run: {type(error).__name__}: {error}") from error
    if not isinstance(schedule, Schedule):
        raise UsageError(f"schedule file {path} defines no SCHEDULE of type Schedule; see fastres/schedules/paper.py")
    return schedule


def override(schedule: Schedule, assignments: list[str]) -> Schedule:
    """Apply `path=value` settings in order, e.g. `stages.0.epochs=1`. Unknown names and bad values raise UsageError."""
    settings = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment!r} has no '=', expected NAME=VALUE such as batch_size=64")
        for name in GROUPS.get(path.strip(), (path.strip(),)):
            settings.pop(name, None)  # the last one counts
            settings[name] = text.strip()
    while settings:  # one may be possible with another alone, whichever is named first
        left, refusal = {}, None
        for name, text in settings.items():
            try:
                schedule = _replace_at(schedule, name.split("."), text, name)
            except UsageError as error:
                left[name], refusal = text, refusal or error
        if len(left) == len(settings):
            raise refusal
        settings = left
    return schedule


def shared_stages(a: Schedule | dict, b: Schedule | dict) -> int:
    """How many leading stages of `a` and `b` (schedules, or what to_dict made of them) do exactly the same.

    Names and the paper's figures make no difference; any other setting of the whole schedule makes it 0.
    """
    ours, theirs = (s.to_dict() if isinstance(s, Schedule) else s for s in (a, b))

    def settings(plain: dict) -> str:
        return _settings(plain, without=("name", "expected", "stages"))

    if settings(ours) != settings(theirs):
        return 0
    count = 0
    for one, other in zip(ours["stages"], theirs["stages"], strict=False):
        if _settings(one, without=("name",)) != _settings(other, without=("name",)):
            break
        count += 1
    return count


def _settings(plain: dict, without: tuple[str, ...]) -> str:
    """As JSON: tuples and the lists that a config.json makes of them are the same."""
    return json.dumps({key: value for key, value in plain.items() if key not in without}, sort_keys=True)


def _replace_at(node: Any, keys: list[str], text: str, path: str) -> Any:
    """A copy of `node` (dataclass or tuple of them) with the value at `keys` replaced."""
    key, rest = keys[0], keys[1:]
    if isinstance(node, tuple):
        if not key.isdecimal() or int(key) >= len(node):
            raise UsageError(f"--set {path}: {key!r} is not an index, expected 0 to {len(node) - 1}")
        items = list(node)
        if not rest:
            raise UsageError(f"--set {path} names a whole row, expected one of its fields: {_fields(items[int(key)])}")
        items[int(key)] = _replace_at(items[int(key)], rest, text, path)
        return tuple(items)
    known = _fields(node)
    if key not in known or key in ("name", "expected"):
        settable = [name for name in known if name not in ("name", "expected")]
        raise UsageError(f"--set {path}: {key!r} is not known{_nearest(key, settable)}; known: {', '.join(settable)}")
    current = getattr(node, key)
    if key == "lr_policy" and not rest and text in LR_POLICIES:
        return dataclasses.replace(node, lr_policy=LR_POLICIES[text]())
    nested = dataclasses.is_dataclass(current) or (isinstance(current, tuple) and current and _fields(current[0]))
    if rest and not nested:
        raise UsageError(f"--set {path}: {key!r} has no parts, expected {key}=VALUE")
    if nested and not rest:
        parts = ", ".join(_fields(current)) if dataclasses.is_dataclass(current) else f"0 to {len(current) - 1}"
        parts += f", or one of {', '.join(LR_POLICIES)}" if key == "lr_policy" else ""
        raise UsageError(f"--set {path} names a group, expected one of its parts: {parts}")
    value = _replace_at(current, rest, text, path) if rest else _parse(text, _field_type(node, key), path)
    return dataclasses.replace(node, **{key: value})


def _parse(text: str, kind: Any, path: str) -> Any:
    """Read `text` as the field's annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        return _parse(text, next(a for a in arguments if a is not type(None)), path)
    if origin is tuple:
        return tuple(_parse(part.strip(), arguments[0], path) for part in text.split(",") if part.strip())
    if origin is dict:
        return {key: _parse(value, arguments[1], path) for key, value in _pairs(text, path)}
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"--set {path}={text}: expected true or false")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            raise UsageError(
                f"--set {path}={text}: expected {'a whole number' if kind is int else 'a number'}"
            ) from None
        if value != value or value in (float("inf"), float("-inf")):
            raise UsageError(f"--set {path}={text}: expected a finite number")
        return value
    return text


def _pairs(text: str, path: str) -> list[tuple[str, str]]:
    """`a:1,b:2` as pairs."""
    pairs = [part.partition(":") for part in text.split(",") if part.strip()]
    for name, colon, value in pairs:
        if not (name.strip() and colon and value.strip()):
            raise UsageError(f"--set {path}={text}: expected PATTERN:NUMBER,... such as conv1.*:0.1,fc.*:2")
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _fields(node: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []


def _field_type(node: Any, key: str) -> Any:
    return typing.get_type_hints(type(node))[key]


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {match[0]!r}?" if match else ""
