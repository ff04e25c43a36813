"""The Dockerfile and .dockerignore, read as Docker reads them, as far as ours use its language."""

import json
import re
import shlex
import shutil
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
KNOWN = {"ARG", "FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) in order, comments left out and continued lines joined. ValueError for an unknown one."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name not in KNOWN or not rest.strip():
            raise ValueError(line)
        found.append((name, rest.strip()))
    return found


def ours() -> list[tuple[str, str]]:
    return instructions((ROOT / "Dockerfile").read_text())


def variables(rest: str) -> dict[str, str]:
    """Of an ARG or ENV: {name: value}; one without a value has ""."""
    return {word.partition("=")[0]: word.partition("=")[2] for word in shlex.split(rest)}


def copies(found: list[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """(sources, target) of every COPY."""
    words = [shlex.split(rest) for name, rest in found if name == "COPY"]
    return [(sources, target) for *sources, target in words]


def exec_form(rest: str) -> list[str]:
    """The words of ["a", "b"]."""
    return json.loads(rest)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a file from the build: the last pattern says that matches it or a folder above it."""
    out, parts = False, PurePosixPath(path).parts
    places = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for pattern in patterns:
        if any(re.fullmatch(_expression(pattern.removeprefix("!")), place) for place in places):
            out = not pattern.startswith("!")
    return out


def _expression(pattern: str) -> str:
    """A pattern's regular expression: ** crosses folders, * does not."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))


def patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def copy_sources(image: Path) -> None:
    """Do every COPY, with the folder `image` for the image's /."""
    for sources, target in copies(ours()):
        for source in sources:
            whole = (ROOT / source).is_dir()
            files = [file for file in (ROOT / source).rglob("*") if file.is_file()] if whole else [ROOT / source]
            for file in files:
                if not ignored(str(file.relative_to(ROOT)), patterns()):
                    below = file.relative_to(ROOT / source) if whole else file.name if target.endswith("/") else ""
                    to = image / target.lstrip("/") / below
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, to)
