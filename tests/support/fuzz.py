"""Seeded chance for the fuzz tier: tries until a time is over, JSON values and bytes with something changed."""

import contextlib
import copy
import io
import random
import time

import pytest

from fastres.machine.errors import FastresError

SECONDS = [pytest.param(0.8, id="fast"), pytest.param(12, id="slow", marks=pytest.mark.slow)]
VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        7,
        10**30,
        -0.5,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\0",
        "../x",
        "n01",
        "é" * 300,
    ),
    *([], {}, [[]], [None], {"a": 1}, [1, 2], {"": {}}, "0" * 64, [["a", "b"]], 2**63, "train"),
)


def tries(seconds, seed):
    """A generator of chance for each try, until the time is over."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield random.Random(f"{seed} {number}"), f"{seed} {number}"
        number += 1
    assert number > 3


def survives(what, work, *allowed):
    """Whether `work` ended well; anything but a fault of ours, or what is allowed, fails the test."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            work()
        return True
    except (FastresError, *allowed) as error:
        assert str(error) and "\n" not in str(error).strip(), what
        return False
    except SystemExit as end:
        assert end.code in (0, 2), what
        return False
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def altered(value, chance):
    """The JSON value with one place in it changed: another value, a name more or less, the same twice."""
    value = copy.deepcopy(value)
    places = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    at = 0
    while at < len(places):
        inner = places[at][0][places[at][1]]
        if isinstance(inner, (dict, list)):
            places += [(inner, key) for key in (inner if isinstance(inner, dict) else range(len(inner)))]
        at += 1
    holder, key = chance.choice(places)
    how = chance.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.25 and isinstance(holder, dict):
        holder[chance.choice(("x", "", "per_class", "selection", "sample", "../y"))] = chance.choice(VALUES)
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    return value


def bytes_altered(data, chance):
    """Cut, flipped, a piece moved, doubled, zeroed or left out."""
    data, size = bytearray(data), len(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        a, b = sorted(chance.randrange(size + 1) for _ in range(2))
        how = chance.randrange(6)
        if how == 0:
            del data[a:]
        elif how == 1 and data:
            data[a % len(data)] ^= 1 << chance.randrange(8)
        elif how == 2:
            data[a:b] = bytes(b - a)
        elif how == 3:
            del data[a : min(b, a + 40)]
        elif how == 4:
            data[a:a] = data[b : b + 30]
        elif data:
            data[a % len(data)] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
    return bytes(data)
