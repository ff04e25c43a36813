"""The optional libraries behind the engines: whether they are here, and what to say when they are not."""

from importlib.util import find_spec
from typing import NamedTuple

from fastres.errors import MachineError


class Library(NamedTuple):
    """module: what must be importable. install: how to get it."""

    module: str
    install: str


ENGINE_LIBRARIES = {
    "ffcv": Library(
        "ffcv",
        "apt-get install libopencv-dev libturbojpeg0-dev pkg-config g++ && "
        "pip install --no-build-isolation 'ffcv>=1.0.2' opencv-python",
    ),
    "dali": Library("nvidia.dali", "pip install 'nvidia-dali-cuda130>=2.4'"),
}


def installed(engine: str) -> bool:
    """Whether the engine's library can be imported; resident needs none."""
    if engine not in ENGINE_LIBRARIES:
        return True
    try:
        return find_spec(ENGINE_LIBRARIES[engine].module) is not None
    except ModuleNotFoundError:  # not even the package that the module would be in
        return False


def require(engine: str) -> None:
    """MachineError with the line that installs the engine's library, if it is missing."""
    if not installed(engine):
        library = ENGINE_LIBRARIES[engine]
        raise MachineError(
            f"--engine {engine}: {library.module} is not installed; {library.install}, or use --engine resident"
        )
