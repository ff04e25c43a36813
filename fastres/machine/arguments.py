"""What command lines have in common."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from fastres.machine.errors import UsageError


def place(text: str) -> Path:
    """A file or a folder, for argparse's `type`: an empty name, as an unset variable leaves one, would be the working
    folder, and no file's name has a zero byte."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty, expected a name; the working folder itself is .")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} has a zero byte in it, expected a name")
    return Path(text)


def path_of(path: object) -> Path:
    """The same for callers in Python. UsageError for what is no path, or an empty one."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"found {path!r}, expected a path")
    try:
        return place(os.fspath(path))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"path {error}") from None


def asked(parser: argparse.ArgumentParser, **named) -> argparse.Namespace:
    """What `parser` makes of its options by name, for callers in Python: `per_class=(100, 10)` is --per-class 100,10.

    None leaves an option away, and so does False one without a value, which True gives; of a mapping each pair is a
    word, NAME=VALUE. UsageError where the command line would end with exit code 2, and for False where a value belongs.
    """
    options = [word for action in parser._actions if action.nargs == 0 for word in action.option_strings]
    switches = {word.lstrip("-").replace("-", "_") for word in options}
    words = []
    for name, value in named.items():
        option = f"--{name.replace('_', '-')}"
        if value is False and name not in switches:
            raise UsageError(f"{name}: found False, expected a value; leave it out, or None, for the default")
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, Mapping):
            words += [option, *(f"{key}={_word(each)}" for key, each in value.items())] if value else []
        else:
            words.append(f"{option}={_word(value)}")
    parser.error = _raise
    return parser.parse_args(words)


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{each}" for key, each in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _raise(message: str) -> NoReturn:
    raise UsageError(message)
