"""How a row of a schedule checks itself: every field of its annotated type, then within its bounds."""

import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from fastres.machine.errors import UsageError


def check(condition: bool, name: str, value: Any, expected: str) -> None:
    """UsageError unless `condition`."""
    if not condition:
        raise UsageError(f"{name} is {value!r}, expected {expected}")


def settle_types(row: Any, group: str = "") -> None:
    """Bring each field of a frozen dataclass to its annotated type where nothing is lost: a list to a tuple, a path to
    its text, NumPy's numbers to Python's. UsageError, which names the field, for 2.5 epochs, an infinite rate, a text
    in place of a number. `group`: what --set puts before the field's name."""
    hints = typing.get_type_hints(type(row))
    label = getattr(row, "name", None)
    where = f" of stage {label}" if type(row).__name__ == "Stage" else ""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        settled = _settled(value, hints[field.name], f"{group}{field.name}{where}")
        if settled is not value:
            object.__setattr__(row, field.name, settled)


def _settled(value: Any, kind: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        if dataclasses.is_dataclass(arguments[0]):
            names = " or ".join(option.__name__ for option in arguments)
            check(isinstance(value, arguments), name, value, f"a {names}")
            return value
        return _settled(value, arguments[0], name)
    if origin is tuple:
        check(isinstance(value, (tuple, list)), name, value, f"a tuple of {_name(arguments[0])}")
        settled = tuple(_settled(item, arguments[0], name) for item in value)
        if arguments[0] is float:  # 1 and 1.0 are the same setting: in a config's text too
            return tuple(map(float, settled))
        return value if settled == value else settled
    if origin is dict:
        check(isinstance(value, Mapping), name, value, f"a dict of {_name(arguments[1])} by name")
        items = {_settled(k, arguments[0], name): _settled(v, arguments[1], name) for k, v in value.items()}
        return value if items == value else items
    if kind is int:
        check(isinstance(value, numbers.Integral) and not isinstance(value, bool), name, value, "a whole number")
        return value if type(value) is int else int(value)
    if kind is float:
        known = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        check(known, name, value, "a finite number")
        return value if type(value) in (int, float) else float(value)
    if kind is str:
        check(isinstance(value, (str, os.PathLike)), name, value, "a text")
        return value if type(value) is str else os.fspath(value)
    check(isinstance(value, kind), name, value, f"a {_name(kind)}")
    return value


def _name(kind: Any) -> str:
    return {str: "texts", float: "numbers", int: "whole numbers"}.get(kind, getattr(kind, "__name__", str(kind)))
