"""fastres: staged fine-tuning of pretrained residual networks on small images, fast and trustworthy.

From Python: `fastres.pack`, `fastres.train`, `fastres.load`, `fastres.Run` (see fastres/api.py). Nothing heavy is
imported before one of them is used.
"""

import importlib
import sys

__version__ = "0.2.0"

if sys.argv[:1] == ["-m"] and "-m" in sys.orig_argv:  # `python -m fastres...`: this package is its first import
    from fastres.machine import waiting
    from fastres.machine.processes.signals import leave_at_once

    if sys.orig_argv[sys.orig_argv.index("-m") + 1].partition(".")[0] == "fastres":
        leave_at_once()
        waiting.choose()

_OF_API = (  # as __init__.pyi tells type checkers
    *("DataError", "Diverged", "FastresError", "MachineError", "Preempted", "UsageError"),
    *("Model", "Prediction", "Run", "load", "pack"),
)


def __getattr__(name: str) -> object:
    if name in _OF_API:
        return getattr(importlib.import_module("fastres.api"), name)
    if name == "train":  # the room, which can be called
        return importlib.import_module("fastres.train")
    raise AttributeError(f"module 'fastres' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_OF_API, "train"])
