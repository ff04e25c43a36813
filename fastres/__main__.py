"""fastres NAME ...: every command of the project by its name; without one, the list. --version prints the version.

`python -m fastres NAME ...` is the same. `python preprocess/pack.py` and `python -m fastres.train` run as they are too.
"""

import difflib
import importlib
import sys

from fastres import __version__
from fastres.machine import waiting
from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.machine.packer import packer

# name: the module whose `main` it is, and what it does
COMMANDS = {
    "pack":      ("preprocess.pack",             "a data set, once, into files that training reads"),
    "train":     ("fastres.train.command",       "a schedule's stages, then twelve-crop evaluation; resumes by itself"),
    "evaluate":  ("fastres.evaluate.__main__",   "errors by crop method of a run or of weights; test-set answers"),
    "predict":   ("fastres.predict.__main__",    "what is in these images"),
    "export":    ("fastres.model.export",        "a network as ONNX or safetensors"),
    "study":     ("fastres.study.__main__",      "every system of the paper, its tables and figures"),
    "search":    ("fastres.study.search.__main__", "the paper's randomized search of rates and the like"),
    "bench":     ("fastres.bench.__main__",      "speed beside the best peers: views, loaders, steps, packing, runs"),
    "gpu":       ("fastres.bench.gpu.command",   "what a new GPU must show: works, wrong or slow, in one command"),
    "doctor":    ("fastres.machine.__main__",    "what this machine has and lacks, with the remedies"),
    "show":      ("fastres.track.show",          "runs on one page of HTML, live too"),
    "workspace": ("fastres.track.workspace",     "a project's view on Weights & Biases"),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv == ["--version"]:
        print(f"fastres {__version__}")
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageError(f"fastres {name}: no such command; {meant}expected one of {', '.join(COMMANDS)}")
    module = COMMANDS[name][0]
    found = packer(module.partition(".")[2]) if module.startswith("preprocess.") else importlib.import_module(module)
    return found.main(arguments)


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: fastres NAME ...    (NAME --help says what it takes) | --version", "", *lines])


def console() -> int:
    """The installed script."""
    waiting.choose()
    return run_command(main)


if __name__ == "__main__":
    sys.exit(console())
