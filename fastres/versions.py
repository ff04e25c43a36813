"""What is installed, and the oldest torch that fastres runs on."""

import importlib.metadata

from fastres.errors import MachineError

OLDEST = {"torch": (2, 11), "torchvision": (0, 26)}
REMEDY = "pip install 'torch>=2.11' torchvision"


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def at_least(version: str, wanted: tuple[int, int]) -> bool:
    """Whether e.g. 2.15.0+cu132 is (2, 11) or newer."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= wanted


def check_torch() -> None:
    """MachineError where torch or torchvision is missing or older than OLDEST."""
    for package, wanted in OLDEST.items():
        found = installed(package)
        if found is None or not at_least(found, wanted):
            expected = ".".join(map(str, wanted))
            raise MachineError(f"{package}: found {found or 'none'}, expected {expected} or newer; {REMEDY}")
