"""What fastres needs of a machine, one check a finding; none of them raises."""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fastres.machine.compilers import PROBES
from fastres.machine.errors import first_line
from fastres.machine.extras import EXTRAS, install_line, is_here
from fastres.machine.packer import COMMAND, OURS
from fastres.machine.versions import OLDEST, REMEDY, at_least
from fastres.machine.versions import installed as _version

GB = 1e9
NEEDED_MEMORY_GB = 6  # training set, its views and a ResNet-18's activations
NEEDED_DISK_GB = 4  # the zip and all packed formats
NEEDED_SHM_GB = 1  # DataLoader workers and DALI pass batches through it


@dataclass(frozen=True)
class Finding:
    """One line of the screen. `state`: ok, gap (something works less well) or fault (the main job cannot run)."""

    what: str
    state: str
    found: str
    remedy: str = ""


def examine(packed: Path) -> list[Finding]:
    """Every check, in the order of the screen; none of them raises."""
    broken = import_faults([library.module for library in LIBRARIES if library.tried])
    checks: list[Callable[[], Finding]] = [
        _python,
        _torch,
        _torchvision,
        _gpu,
        *(partial(_library, library, broken.get(library.module)) for library in LIBRARIES),
        *(partial(_compiler, *row) for row in PROBES),
        _apex,
        _wandb,
        _memory,
        lambda: _disk(packed),
        _shared_memory,
        lambda: _packed(packed),
    ]
    return [_without_raising(check) for check in checks]


class Library(NamedTuple):
    """`needed`: without it the main job cannot run. `tried`: it is imported, to see whether it can be."""

    module: str
    remedy: str
    needed: bool = False
    tried: bool = True


LIBRARIES = (
    Library("triton", "comes with torch's CUDA build: pip install torch"),
    Library("numba", "pip install numba", needed=True),
    *(
        Library(module, f"{install_line(name)} (needed by {extra.purpose})", tried=module != "timm")  # it takes seconds
        for name, extra in EXTRAS.items()
        for module in extra.modules
    ),
)


def import_faults(modules: list[str]) -> dict[str, str]:
    """Why each module that is here cannot be imported: one may lack a library of the system, or end its process. All
    are tried at once, each in a process of its own."""
    here = [module for module in modules if is_here(module)]
    tries = {
        m: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", f"import {m}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for m in here
    }
    faults = {}
    for module, process in tries.items():
        said = process.communicate()[1].strip().splitlines()
        if process.returncode:
            faults[module] = said[-1] if said else f"its import ends with {process.returncode}"
    return faults


def _library(library: Library, fault: str | None) -> Finding:
    worse = "fault" if library.needed else "gap"
    if not is_here(library.module):
        return Finding(
            library.module, worse, "not installed" + ("" if library.needed else " (optional)"), library.remedy
        )
    if fault:
        return Finding(library.module, worse, f"installed, but {fault}", library.remedy)
    package = library.module.replace(".", "-").replace("_", "-")
    names = (package, *(f"{package}-cuda{major}0" for major in (11, 12, 13)))
    return Finding(library.module, "ok", next(filter(None, map(_version, names)), "of an unknown version"))


def _compiler(what: str, probe: Callable[[], str | None], purpose: str, remedy: str) -> Finding:
    if fault := probe():
        return Finding(what, "gap", fault, f"{remedy} (needed by {purpose})")
    return Finding(what, "ok", f"works, for {purpose}")


def _without_raising(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken package raises anything when it is imported
        reason = first_line(error)
        what = getattr(check, "__name__", "").strip("_") or "a check"
        return Finding(what, "gap", f"cannot be looked at: {reason}", "mend what the line names, then run this again")


def _python() -> Finding:
    good = sys.version_info >= (3, 11) and sys.platform == "linux"
    found = f"{platform.python_version()} on {platform.system()}"
    return Finding("Python", "ok" if good else "fault", found, "" if good else "use Python 3.11 or newer on Linux")


def _torch() -> Finding:
    version = _version("torch")
    if version is None or not at_least(version, OLDEST["torch"]):
        return Finding("torch", "fault", version or "not installed", REMEDY)
    try:
        import torch
    except Exception as error:  # a library of the system that it needs is missing
        return Finding("torch", "fault", first_line(error), "pip install --force-reinstall torch torchvision")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    if torch.version.cuda is None:
        return Finding("torch", "gap", f"{version}, {built}: it sees no GPU", "pip install --force-reinstall torch")
    return Finding("torch", "ok", f"{version}, {built}")


def _torchvision() -> Finding:
    try:
        import torchvision
    except Exception as error:  # a wheel for another torch fails in many ways
        reason = first_line(error)
        return Finding("torchvision", "fault", reason, "pip install --force-reinstall torch torchvision")
    if not at_least(torchvision.__version__, OLDEST["torchvision"]):
        return Finding("torchvision", "fault", torchvision.__version__, REMEDY)
    return Finding("torchvision", "ok", torchvision.__version__)


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", "gap", "unknown without torch", "install torch first")
    import torch

    from fastres.machine.gpu import is_usable, why_unused

    if unused := why_unused():
        found, _, remedy = unused.partition("; ")
        return Finding("GPU", "fault", found, f"{remedy}; or --device cpu")
    if not is_usable()[0]:
        return Finding("GPU", "gap", "none visible to torch", "the CPU is used; else check nvidia-smi and the driver")
    name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / GB
    return Finding("GPU", "ok", f"{torch.cuda.device_count()} x {name}, {memory:.0f} GB, CUDA {torch.version.cuda}")


def _apex() -> Finding:
    if importlib.util.find_spec("apex") is None:
        return Finding("apex", "gap", "not installed (optional)", "build NVIDIA/apex from source; PyPI has another")
    if importlib.util.find_spec("apex.optimizers") is not None and importlib.util.find_spec("amp_C") is None:
        return Finding("apex", "gap", "built without its CUDA extensions", "build with APEX_CPP_EXT=1 APEX_CUDA_EXT=1")
    ours = importlib.util.find_spec("apex.optimizers") is not None
    remedy = "" if ours else "pip uninstall apex, then build NVIDIA/apex from source"
    return Finding("apex", "ok" if ours else "gap", "found" if ours else "another package of that name", remedy)


def _wandb() -> Finding:
    version = _version("wandb")
    if version is None:
        return Finding("W&B", "gap", "not installed", "pip install wandb; run folders hold everything anyway")
    from fastres.machine.login import has_login

    if has_login():
        return Finding("W&B", "ok", f"{version}, logged in")
    return Finding("W&B", "gap", f"{version}, no login: runs are mirrored offline", "wandb login")


def _memory() -> Finding:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
    with contextlib.suppress(OSError, ValueError):  # a container's limit, if there is one
        size = min(size, int(Path("/sys/fs/cgroup/memory.max").read_text()) / GB)
    enough = size >= NEEDED_MEMORY_GB
    return Finding(
        "memory",
        "ok" if enough else "gap",
        f"{size:.0f} GB, {len(os.sched_getaffinity(0))} cores",
        "" if enough else f"{NEEDED_MEMORY_GB} GB is comfortable; lower --set batch_size=...",
    )


def _disk(packed: Path) -> Finding:
    at = packed if packed.exists() else Path(".")
    free = shutil.disk_usage(at).free / GB
    enough = free >= NEEDED_DISK_GB
    return Finding(
        "disk",
        "ok" if enough else "gap",
        f"{free:.0f} GB free at {at}",
        "" if enough else f"free {NEEDED_DISK_GB} GB, or pack with --out elsewhere",
    )


def _shared_memory() -> Finding:
    try:
        size = shutil.disk_usage("/dev/shm").total / GB
    except OSError:
        return Finding("/dev/shm", "gap", "absent", "in a container: --shm-size=1g")
    enough = size >= NEEDED_SHM_GB
    remedy = "" if enough else "in a container: --shm-size=1g"
    return Finding("/dev/shm", "ok" if enough else "gap", f"{size:.1f} GB", remedy)


def _packed(packed: Path) -> Finding:
    """As the packer's own check sees it, which is a command above this room."""
    if not packed.exists():
        return Finding("packed data", "gap", f"no {packed}", COMMAND)
    check = [sys.executable, str(OURS.with_name("pack.py")), "--check", "--json", "--out", str(packed)]
    done = subprocess.run(check, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        found = said[-1].removeprefix("error: ")
        return Finding("packed data", "fault", found, f"{COMMAND} --out {packed}")
    whole = json.loads(done.stdout)
    counts = ", ".join(f"{name} {count:,}" for name, count in whole["images"].items())
    return Finding("packed data", "ok", f"{packed}: {whole['classes']} classes of {whole['side']} px; {counts}")
