"""JSON that every strict reader takes: NaN and infinity, which Python writes and reads by default, are none."""

import json
import math
from collections.abc import Mapping


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


def loads(text: str | bytes):
    """The value of a JSON text. ValueError for whatever is none: NaN and infinity, a name that an object has twice,
    more levels than can be followed, bytes that are no UTF-8."""
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("more levels inside each other than can be followed") from None


def _no_number(word: str):
    raise ValueError(f"{word} is no number")


def _finite(digits: str) -> float:
    return float(digits) if math.isfinite(float(digits)) else _no_number(digits)


def _once(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def dumps(value, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """`value` as JSON; numbers that are not finite become null."""
    return json.dumps(plain(value), indent=indent, sort_keys=sort_keys, allow_nan=False)
