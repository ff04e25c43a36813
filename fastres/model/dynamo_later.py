"""torchvision without torch's Dynamo, until something compiles.

torchvision's `ops/roi_align.py` takes one small function from `torch._dynamo.utils`, which loads Dynamo, Inductor and
SymPy: three of the seven seconds in which a command of ours starts. Only a detector on a GPU that needs deterministic
results ever calls that function. While torchvision loads, stand-ins take the place of the two modules: they have this
one function, which asks Dynamo when it is called. Whatever else is asked of them comes from the real modules, which are
loaded then, so another torchvision works as well and only starts later.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

DYNAMO, UTILS = "torch._dynamo", "torch._dynamo.utils"


class _StandIn(ModuleType):
    """An empty module that becomes the real one, for all who come later, when it is asked for what it has not."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and (self.__name__, name) != (DYNAMO, "__path__"):  # import and inspect look for these
            raise AttributeError(name)
        _leave()
        return getattr(importlib.import_module(self.__name__), name)


def is_compile_supported(device_type: object) -> bool:
    """Dynamo's function of this name."""
    return importlib.import_module(UTILS).is_compile_supported(device_type)


is_compile_supported._dynamo_marked_constant = True  # as Dynamo marks its own


@contextlib.contextmanager
def dynamo_later() -> Iterator[None]:
    """Around the first import of torchvision. Where Dynamo is loaded already, nothing happens."""
    if DYNAMO in sys.modules:
        yield
        return
    sys.modules[DYNAMO], sys.modules[UTILS] = _StandIn(DYNAMO), _StandIn(UTILS)
    sys.modules[UTILS].is_compile_supported = is_compile_supported
    try:
        yield
    finally:
        _leave()


def _leave() -> None:
    for name in (DYNAMO, UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
