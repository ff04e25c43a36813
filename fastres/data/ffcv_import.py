"""Importing FFCV without what it does to the process and the clock on the way."""

import importlib
from types import ModuleType


def load_ffcv(module: str) -> ModuleType:
    """The module `module` of FFCV, e.g. "ffcv.writer".

    FFCV keeps two constants in a Numba dictionary, which is compiled for them at every import: 4 of 6 seconds. It
    reads them from Python only, so a plain dictionary does. It also sets torch's threads to one; they are put back.
    """
    import numba.typed
    import torch

    threads, compiled = torch.get_num_threads(), numba.typed.Dict
    numba.typed.Dict = dict
    try:
        return importlib.import_module(module)
    finally:
        numba.typed.Dict = compiled
        torch.set_num_threads(threads)
