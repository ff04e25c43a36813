"""The commands that README and fastres/docs tell people to type, and whether their programs would take them."""

import argparse
import importlib.util
import re
import shlex
from pathlib import Path

from fastres.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "fastres" / "docs"
PROGRAMS = (
    "python", "fastres", "make", "torchrun", "git", "cd", "source", "ls", "find",
    "sbatch", "srun", "wandb", "pip", "pipx", "uvx", "docker",
)  # fmt: skip
IMAGES = ("fastres", "fastres-cuda")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def commands(page: Path) -> list[str]:
    """In order, without comments: lines of fenced blocks that begin with a program, and whole inline `python ...`.

    `fastres NAME`, in capitals, is prose.
    """
    found, fence, text = [], None, page.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("```"):
            fence = None if fence is not None else line[3:]
            continue
        if fence is None:
            found += re.findall(r"`((?:python|make|torchrun|fastres(?= [a-z])) [^`]+)`", line)
        elif fence in ("", "sh", "bash") and line.split(" ")[0] in PROGRAMS:
            found.append(uncommented(line))
    return found


def uncommented(line: str) -> str:
    """Without `  # why`."""
    return re.split(r"\s+#(?= )", line)[0].strip()


class Parsed(Exception):
    """The command line is one that its program takes."""


def parse(command: str, monkeypatch) -> None:
    """Parse it as its program would and do nothing. SystemExit or a FastresError where the program refuses it."""
    words = shlex.split(command.rpartition(" | ")[2] if command.startswith("find ") else command)  # the one that reads
    if "fastres.train" in command and words[0] in ("torchrun", "srun"):
        words = ["python", *words[words.index("-m") :]]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{words[1]}:", makefile, re.M), command
        return
    if words[:2] == ["docker", "run"]:  # what stands behind the image is for the program in it
        words = ["fastres", *words[next(place for place, word in enumerate(words) if word in IMAGES) + 1 :]]
    if words[0] == "fastres":  # the console script
        words = ["python", "-m", *words]
    if words[0] != "python":
        return
    name, arguments = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
    if name == "fastres":
        if arguments in ([], ["--version"]):  # lists the commands; says its version
            return
        assert arguments[0] in COMMANDS, command
    if name.startswith("tests."):
        assert importlib.util.find_spec(name), command
        return
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{module.__name__}.__main__")
    parse_known = argparse.ArgumentParser.parse_known_args
    depth = []

    def parse_only(self, args=None, namespace=None):
        """Subparsers parse too, inside the outermost parser."""
        depth.append(self)
        try:
            found, surplus = parse_known(self, args, namespace)
        finally:
            depth.pop()
        if depth:
            return found, surplus
        if surplus:
            self.error(f"unrecognized arguments: {' '.join(surplus)}")
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_only)
        try:
            module.main(arguments)
        except Parsed:
            return
        except SystemExit as stop:
            if stop.code == 0 and "--help" in arguments:
                return
            raise
    raise AssertionError(f"{command}: ran without parsing its arguments")
