"""What this machine has and lacks for fastres, on one screen, with the one-line remedy for each gap.

    python -m fastres.doctor [--data packed] [--json]
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fastres.errors import FastresError, run_command
from fastres.versions import OLDEST, REMEDY, at_least
from fastres.versions import installed as _version

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
    broken = import_faults([library.module for library in LIBRARIES])
    checks: list[Callable[[], Finding]] = [
        _python, _torch, _torchvision, _gpu,
        *(partial(_library, library, broken.get(library.module)) for library in LIBRARIES),
        _apex, _wandb, _memory, lambda: _disk(packed), _shared_memory, lambda: _packed(packed),
    ]  # fmt: skip
    return [_without_raising(check) for check in checks]


class Library(NamedTuple):
    """`needed`: without it the main job cannot run."""

    module: str
    remedy: str
    needed: bool = False


LIBRARIES = (
    Library("triton", "comes with torch's CUDA build: pip install torch"),
    Library("numba", "pip install numba", needed=True),
    Library("ffcv", "pip install --no-build-isolation 'ffcv>=1.0.2' after the packages README names"),
    Library("nvidia.dali", "pip install nvidia-dali-cuda130"),
    Library("optuna", "pip install 'optuna>=4', for fastres.search"),
)


def import_faults(modules: list[str]) -> dict[str, str]:
    """Why each module that is here cannot be imported: one may lack a library of the system, or end its process. All
    are tried at once, each in a process of its own."""
    here = [module for module in modules if _is_here(module)]
    tries = {m: subprocess.Popen([sys.executable, "-W", "ignore", "-c", f"import {m}"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True) for m in here}  # fmt: skip
    faults = {}
    for module, process in tries.items():
        said = process.communicate()[1].strip().splitlines()
        if process.returncode:
            faults[module] = said[-1] if said else f"its import ends with {process.returncode}"
    return faults


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that the module would be in
        return False


def _library(library: Library, fault: str | None) -> Finding:
    worse = "fault" if library.needed else "gap"
    if not _is_here(library.module):
        return Finding(library.module, worse, "not installed" + ("" if library.needed else " (optional)"),
                       library.remedy)  # fmt: skip
    if fault:
        return Finding(library.module, worse, f"installed, but {fault}", library.remedy)
    names = (library.module, *(f"{library.module.replace('.', '-')}-cuda{major}0" for major in (11, 12, 13)))
    return Finding(library.module, "ok", next(filter(None, map(_version, names)), "of an unknown version"))


def _without_raising(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken package raises anything when it is imported
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
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
        return Finding("torch", "fault", str(error).splitlines()[0], "pip install --force-reinstall torch torchvision")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    if torch.version.cuda is None:
        return Finding("torch", "gap", f"{version}, {built}: it sees no GPU", "pip install --force-reinstall torch")
    return Finding("torch", "ok", f"{version}, {built}")


def _torchvision() -> Finding:
    try:
        import torchvision
    except Exception as error:  # a wheel for another torch fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding("torchvision", "fault", reason, "pip install --force-reinstall torch torchvision")
    if not at_least(torchvision.__version__, OLDEST["torchvision"]):
        return Finding("torchvision", "fault", torchvision.__version__, REMEDY)
    return Finding("torchvision", "ok", torchvision.__version__)


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", "gap", "unknown without torch", "install torch first")
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "gap", "none visible to torch", "the CPU is used; else check nvidia-smi and the driver")
    name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / GB
    return Finding("GPU", "ok", f"{torch.cuda.device_count()} x {name}, {memory:.0f} GB, CUDA {torch.version.cuda}")


def _apex() -> Finding:
    if importlib.util.find_spec("apex") is None:
        return Finding("apex", "gap", "not installed (optional)", "build NVIDIA/apex from source; PyPI has another")
    if importlib.util.find_spec("apex.optimizers") is not None and importlib.util.find_spec("amp_C") is None:
        return Finding("apex", "gap", "built without its CUDA extensions", "build with APEX_CPP_EXT=1 APEX_CUDA_EXT=1")
    ours = importlib.util.find_spec("apex.optimizers") is not None
    return Finding("apex", "ok" if ours else "gap", "found" if ours else "another package of that name",
                   "" if ours else "pip uninstall apex, then build NVIDIA/apex from source")  # fmt: skip


def _wandb() -> Finding:
    version = _version("wandb")
    if version is None:
        return Finding("W&B", "gap", "not installed", "pip install wandb; run folders hold everything anyway")
    from fastres.track.wandb import has_login

    if has_login():
        return Finding("W&B", "ok", f"{version}, logged in")
    return Finding("W&B", "gap", f"{version}, no login: runs are mirrored offline", "wandb login")


def _memory() -> Finding:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
    with contextlib.suppress(OSError, ValueError):  # a container's limit, if there is one
        size = min(size, int(Path("/sys/fs/cgroup/memory.max").read_text()) / GB)
    enough = size >= NEEDED_MEMORY_GB
    return Finding("memory", "ok" if enough else "gap", f"{size:.0f} GB, {len(os.sched_getaffinity(0))} cores",
                   "" if enough else f"{NEEDED_MEMORY_GB} GB is comfortable; lower --set batch_size=...")  # fmt: skip


def _disk(packed: Path) -> Finding:
    at = packed if packed.exists() else Path(".")
    free = shutil.disk_usage(at).free / GB
    enough = free >= NEEDED_DISK_GB
    return Finding("disk", "ok" if enough else "gap", f"{free:.0f} GB free at {at}",
                   "" if enough else f"free {NEEDED_DISK_GB} GB, or pack with --out elsewhere")  # fmt: skip


def _shared_memory() -> Finding:
    try:
        size = shutil.disk_usage("/dev/shm").total / GB
    except OSError:
        return Finding("/dev/shm", "gap", "absent", "in a container: --shm-size=1g")
    enough = size >= NEEDED_SHM_GB
    remedy = "" if enough else "in a container: --shm-size=1g"
    return Finding("/dev/shm", "ok" if enough else "gap", f"{size:.1f} GB", remedy)


def _packed(packed: Path) -> Finding:
    from fastres.data.manifest import check_sample, load_manifest

    if not packed.exists():
        return Finding("packed data", "gap", f"no {packed}", "python preprocess/pack.py")
    try:
        manifest = load_manifest(packed)
        for name in manifest.files:
            check_sample(packed, manifest, name)
    except FastresError as error:
        return Finding("packed data", "fault", str(error), f"python preprocess/pack.py --out {packed}")
    counts = ", ".join(f"{name} {manifest.count(name):,}" for name in manifest.splits)
    return Finding("packed data", "ok", f"{packed}: {manifest.num_classes} classes of {manifest.side} px; {counts}")


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m fastres.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data", type=Path, default=Path("packed"), metavar="DIR", help="packed folder to look at")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    args = p.parse_args(argv)
    findings = examine(args.data)
    if args.json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            remedy = f"  -> {finding.remedy}" if finding.remedy else ""
            print(f"{finding.state:6}{finding.what:14}{finding.found}{remedy}")
    return 4 if any(finding.state == "fault" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
