"""How much memory can still be had: of the machine, of the container, of the process's own limit, of a GPU."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
_V2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
_V1 = (*(f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")), "total_inactive_file")


def free_bytes() -> int | None:
    """Bytes that this process can still get without another one's being taken away; None where nothing says."""
    limits = [known for ask in (_machine, _container, _own_limit) if (known := _without_raising(ask)) is not None]
    return max(0, min(limits)) if limits else None


def free_gpu_bytes(device: torch.device) -> int:
    """Bytes that no process has taken on this GPU."""
    return torch.cuda.mem_get_info(device)[0]


def processes_here() -> int:
    """Processes of this run on this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _without_raising(ask: Callable[[], int | None]) -> int | None:
    try:
        return ask()
    except (OSError, ValueError, KeyError, IndexError):  # another system, or a /proc that is not there
        return None


def _machine() -> int:
    """What the kernel can give, with what it would swap out for it."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))


def _container() -> int | None:
    """What is left below the container's limit; files that are merely cached are given back."""
    limit, used, stat, cached = _V2 if (CGROUP / _V2[0]).exists() else _V1
    most = (CGROUP / limit).read_text().strip()
    if most == "max":
        return None
    inactive = dict(line.split() for line in (CGROUP / stat).read_text().splitlines())[cached]
    return int(most) - int((CGROUP / used).read_text()) + int(inactive)


def _own_limit() -> int | None:
    """What is left below `ulimit -v`."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
