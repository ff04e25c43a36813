"""What is installed, and the oldest torch that fastres runs on."""

import hashlib
import importlib.metadata
from pathlib import Path

from fastres.machine.errors import MachineError

OLDEST = {"torch": (2, 11), "torchvision": (0, 26)}
COMPUTE = ("torch", "torchvision", "numpy", "numba", "triton")
REMEDY = "pip install 'torch>=2.11' torchvision"


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def of_code() -> dict[str, str | None]:
    """What computes: versions by package, and a digest of the sources of fastres itself."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return {"fastres": digest.hexdigest()[:12], **{package: installed(package) for package in COMPUTE}}


def at_least(version: str, wanted: tuple[int, int]) -> bool:
    """Whether e.g. 2.15.0+cu132 is (2, 11) or newer."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= wanted


def built_for_cuda_12() -> bool:
    """Whether the torch that is installed is; one that does not say counts as built for CUDA 13."""
    version = installed("torch")
    needs = importlib.metadata.requires("torch") or [] if version else []
    return version is not None and ("+cu12" in version or any("-cu12" in package for package in needs))


def check_torch() -> None:
    """MachineError where torch or torchvision is missing or older than OLDEST."""
    for package, wanted in OLDEST.items():
        found = installed(package)
        if found is None or not at_least(found, wanted):
            expected = ".".join(map(str, wanted))
            raise MachineError(f"{package}: found {found or 'none'}, expected {expected} or newer; {REMEDY}")
