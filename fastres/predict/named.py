"""Which images a command line names: files, folders with all that is in them, patterns, a list on standard input."""

import codecs
import contextlib
import glob
import itertools
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fastres.data.formats import HEAD_BYTES, IMAGE_ENDINGS, RAW_ENDINGS, format_of
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.files import read_regular

LISTED = "-"  # the word for a list on standard input


def images_of(words: list[Path], listed: Callable[[], bytes]) -> list[Path]:
    """The files that `words` name, word by word. UsageError where a word names none.

    A folder stands for every image in it, at any depth, sorted by path; a pattern that is no file's own name for every
    image and folder that it matches (** for folders at any depth); LISTED for the names that `listed` reads, with line
    ends or zero bytes between them. A file that is named itself counts as an image whatever it is.
    """
    found: list[Path] = []
    for word in words:
        if str(word) == LISTED:
            found += _listed(listed())
        elif word.is_dir():
            found += _inside(word, f"image {word}: a folder without an image in it")
        elif os.path.lexists(word):
            found.append(word)
        elif glob.has_magic(str(word)):
            found += _matching(str(word))
        else:
            raise UsageError(f"image {word}: there is no such file, expected an image or a folder; check the path")
    return found


def _listed(content: bytes) -> list[Path]:
    fault = f"image {LISTED}: standard input names none, expected a path a line, as find prints them"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes text
        content = content.decode("utf-16", errors="replace").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    names = content.split(b"\0") if b"\0" in content else content.splitlines()
    paths = [Path(os.fsdecode(name)) for name in names if name.strip()]
    images = [image for path in paths for image in (_in_folder(path) if path.is_dir() else [path])]
    if not images:
        raise UsageError(f"{fault}; found {'folders without an image' if paths else 'nothing'}")
    return images


def _matching(pattern: str) -> list[Path]:
    if "**" in pattern:  # glob passes over what it cannot list
        for _ in os.walk(_before_magic(pattern), onerror=_refused):
            pass
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    images = [i for match in matches for i in (_in_folder(match) if match.is_dir() else [match] * is_image(match))]
    if not images:
        raise UsageError(f"image {pattern}: no image has a path like it; check it, and quote it against the shell")
    real, once = cache(os.path.realpath), {}  # ** matches folders and what is in them, through links in circles
    for image in sorted(images, key=lambda path: len(path.parts)):
        once.setdefault((real(image.parent), image.name), image)
    return sorted(once.values())


def _before_magic(pattern: str) -> str:
    """The folder below which a pattern looks."""
    parts = Path(pattern).parts
    plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return str(Path(*plain)) if plain else "."


def _refused(error: OSError) -> None:
    """A folder that cannot be listed ends the command: its images would be missing without a word. One that is not
    there has none."""
    if not isinstance(error, FileNotFoundError):
        raise MachineError(f"image {error.filename}: cannot be listed ({error.strerror}); check its permissions")


def _inside(folder: Path, fault: str) -> list[Path]:
    images = _in_folder(folder)
    if not images:
        raise UsageError(f"{fault}; expected images of a format that Pillow reads, or name the files themselves")
    return images


def _in_folder(folder: Path) -> list[Path]:
    """The images below a folder, sorted; nothing hidden, and each folder once, however many links lead to it.
    MachineError for one that cannot be listed."""
    images, seen = [], set()
    for here, folders, files in os.walk(folder, onerror=_refused, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        images += [Path(here, name) for name in files if not name.startswith(".") and is_image(Path(here, name))]
    return sorted(images)


def is_image(path: Path) -> bool:
    """Whether the name says image, or the first bytes do. Whether it is a whole one is for the decoder."""
    lower = path.name.lower()
    if lower.endswith(IMAGE_ENDINGS):
        return True
    with contextlib.suppress(OSError):
        return not lower.endswith(RAW_ENDINGS) and format_of(read_regular(path, HEAD_BYTES)) is not None
    return False
