"""The optional libraries behind the engines: whether they are here, and what is said when they are not."""

from fastres.machine.errors import MachineError
from fastres.machine.extras import EXTRAS, install_line, is_here

OPTIONAL = ("ffcv", "dali")  # engines with an extra of the same name; resident needs no library


def installed(engine: str) -> bool:
    """Whether the engine's library can be imported."""
    return engine not in OPTIONAL or is_here(module_of(engine))


def module_of(engine: str) -> str:
    """What the engine imports."""
    (module,) = EXTRAS[engine].modules
    return module


def require(engine: str) -> None:
    """MachineError with the line that installs the engine's library, if it is missing."""
    if not installed(engine):
        raise MachineError(
            f"--engine {engine}: {module_of(engine)} is not installed; {install_line(engine)}, or use --engine resident"
        )
