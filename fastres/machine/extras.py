"""The optional libraries: which extra of setup.py brings each, whether it is here, and the line that installs it.

Every message about a library that is missing takes its remedy from here. setup.py has the versions.
"""

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fastres.machine.versions import built_for_cuda_12, installed

CHECKOUT = Path(__file__).resolve().parents[2]  # or where the installed package lies
# what FFCV builds against; .ci/system-libraries installs the same, and a wheel has no .ci
SYSTEM_PACKAGES = ("libopencv-dev", "libturbojpeg0-dev", "pkg-config", "g++")


class Extra(NamedTuple):
    """modules: what must be importable. purpose: what needs them."""

    modules: tuple[str, ...]
    purpose: str


EXTRAS = {
    "ffcv": Extra(("ffcv",), "--engine ffcv"),
    "dali": Extra(("nvidia.dali",), "--engine dali"),
    "search": Extra(("optuna",), "`fastres search` and `study --tune`"),
    "dashboard": Extra(("wandb_workspaces",), "`fastres workspace`"),
    "timm": Extra(("timm",), "weights named timm:..."),
    "onnx": Extra(("onnx", "onnxscript", "onnxruntime"), "networks as ONNX"),
}


def install_line(extra: str) -> str:
    """The line that installs what one of EXTRAS needs, such as pip install 'fastres[timm]'.

    pip finds fastres in place, from a wheel or a checkout, and adds the extra alone. Where fastres runs from a checkout
    that nobody installed, pip would look for it elsewhere: there the line has the checkout's path, and may be typed
    anywhere.
    """
    if extra == "dali" and built_for_cuda_12():
        extra = "dali-cuda12"
    fastres = shlex.quote(f"fastres[{extra}]")
    if not installed("fastres"):
        fastres = f"-e {shlex.quote(f'{CHECKOUT}[{extra}]')}"
    if extra == "ffcv":  # its build imports the numpy and setuptools that are here
        return f"apt-get install {' '.join(SYSTEM_PACKAGES)} && pip install --no-build-isolation {fastres}"
    return f"pip install {fastres}"


def is_here(module: str) -> bool:
    """Whether the module can be found; nothing but the packages around it is imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that the module would be in
        return False
