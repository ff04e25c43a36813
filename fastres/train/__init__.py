"""One run: for stage, for epoch, for batch; its options, folder, checkpoints, and what it leaves.

`fastres.train(...)` from Python is api.py's function: an import of this room gives the package that name, so it is the
room that can be called.
"""

import importlib
import inspect
import sys
from types import ModuleType


class _Room(ModuleType):
    def __call__(self, *given, **named):
        return importlib.import_module("fastres.api").train(*given, **named)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(importlib.import_module("fastres.api").train)


sys.modules[__name__].__class__ = _Room
