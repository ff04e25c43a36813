"""An NVIDIA GPU that is in the machine and that torch cannot use: said, before work goes to the CPU without a word."""

import functools
import os
import re
import warnings
from pathlib import Path

import torch

from fastres.machine.errors import MachineError

NODES = Path("/dev")  # each GPU that the driver serves is nvidia0, nvidia1, ... here
HIDDEN = ("", "-1")  # what CUDA_VISIBLE_DEVICES says where somebody wants none of them


@functools.cache  # torch warns at the first call of a process alone
def is_usable() -> tuple[bool, str]:
    """Whether torch can use a GPU, and the first sentence of torch's own warning where it cannot."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    return usable, str(said[0].message).partition(". ")[0] if said else ""


def is_full(error: BaseException | None) -> bool:
    """Whether a fault is that a GPU's memory is full: where cuDNN finds none for the workspace of any of its engines,
    torch says that there is no engine."""
    full = isinstance(error, torch.cuda.OutOfMemoryError)
    return full or (isinstance(error, RuntimeError) and "unable to find an engine" in str(error))


def why_unused() -> str | None:
    """What keeps torch from the GPU that is here, and the remedy; None where torch can use it, where there is none, and
    where CUDA_VISIBLE_DEVICES hides it on purpose."""
    usable, reason = is_usable()
    nodes = sorted(path.name for path in NODES.glob("nvidia[0-9]*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if usable or not nodes or visible in HIDDEN:
        return None
    here = f"a GPU is here (/dev/{nodes[0]}), but torch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{here} is built without CUDA; install torch's build for CUDA"
    reason = f" ({reason})" if reason else ""
    if visible is not None:
        return (
            f"{here} sees none of CUDA_VISIBLE_DEVICES={visible}{reason}; unset it, or name a GPU of nvidia-smi's list"
        )
    remedy = "install a newer driver, or torch for an older CUDA"
    return f"{here} for CUDA {torch.version.cuda} cannot use it{reason}; {remedy}"


def check_architecture(device: torch.device) -> None:
    """MachineError where the GPU is older than the oldest that this build of torch has kernels for."""
    built = [int(found[1]) for name in torch.cuda.get_arch_list() if (found := re.match(r"sm_(\d+)", name))]
    major, minor = torch.cuda.get_device_capability(device)
    if built and major * 10 + minor < min(built):
        raise MachineError(
            f"{torch.cuda.get_device_name(device)} (sm_{major}{minor}) is older than the oldest GPU of torch "
            f"{torch.__version__} for CUDA {torch.version.cuda}, sm_{min(built)}; install torch for an older CUDA, or "
            "use --device cpu"
        )
