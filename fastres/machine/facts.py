"""What machine this is, for summaries and records; and what its GPU could compute at most.

Peaks are dense figures without sparsity, in TFLOP/s, from NVIDIA's data sheets; 16-bit is tensor cores with float32
sums, fp32 is plain float32, since this project allows no TF32. None: not on tensor cores there, or not known. A run's
share of the peak is its model FLOPs utilisation (MFU).
"""

import os
import platform
import re
import resource
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fastres.machine import waiting

LIBRARIES = (
    "torch",
    "torchvision",
    "triton",
    "numba",
    "numpy",
    "kornia",
    "timm",
    "lightning",
    "ffcv",
    "nvidia-dali-cuda130",
    "pillow",
)

# word of torch's device name   fp16    bf16   fp32
PEAKS = (
    (r"H200",                   989.0,  989.0,  67.0),
    (r"H100 PCIe",              756.0,  756.0,  51.0),
    (r"H100 80GB HBM3",         989.0,  989.0,  67.0),
    (r"A100",                   312.0,  312.0,  19.5),
    (r"L40S",                   362.0,  362.0,  91.6),
    (r"L4",                     121.0,  121.0,  30.3),
    (r"A10",                    125.0,  125.0,  31.2),
    (r"V100",                   125.0,  None,   15.7),
    (r"T4",                      65.0,  None,    8.1),
)  # fmt: skip


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of the device that torch calls `device_name` in fp16, bf16 or fp32; None where it is not in the table, and
    for a MIG slice, which is a part of the card in the table."""
    if re.search(r"\bMIG\b", device_name):
        return None
    column = ("fp16", "bf16", "fp32").index(precision)
    for word, *peaks in PEAKS:
        if re.search(rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])", device_name):
            peak = peaks[column]
            return None if peak is None else peak * 1e12
    return None


def mfu_pct(flop_per_image: float, img_per_s: float, peak: float, devices: int = 1) -> float:
    """Share in % of what `devices` could compute that the network's own arithmetic takes at `img_per_s` in all."""
    return 100 * flop_per_image * img_per_s / (peak * devices)


def machine(device: torch.device) -> dict:
    """What ran this, without anything that names a person or a host."""
    libraries = {}
    for library in LIBRARIES:
        try:
            libraries[library] = version(library)
        except PackageNotFoundError:
            libraries[library] = None
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "threads_wait": waiting.policy(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "python": platform.python_version(),
        "libraries": libraries,
        "commit": commit(),
        "date": date.today().isoformat(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def cpuinfo() -> str:
    """What Linux says of the processors; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def processor() -> str:
    """The CPU's name, or what stands for it where the system tells none."""
    found = re.search(r"^model name\s*:[ \t]*(\S.*)", cpuinfo(), re.M)
    return found[1].strip() if found else platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with the threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()} ({torch.get_num_threads()} threads)"


def commit() -> str | None:
    """The short hash of the code that runs, with -dirty where files differ from it; None outside its checkout."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        if subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True).returncode:
            return None
        described = [*git, "describe", "--always", "--dirty", "--exclude", "*"]
        return subprocess.run(described, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # no git here, or none that may be run
        return None


def peak_memory_gb(device: torch.device) -> float:
    """Most memory the run held at once, 10^9 bytes: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
