"""How threads wait for each other at the end of each operator, chosen before torch loads them, as they read it once.

torch's CPU threads are OpenMP's. A thread that is done early spins for the others, which is the quickest where each has
a core of its own. Where other work has the core that one of them needs, all others spin until it comes back: training
everything at crop 28 fell from 207 to 77 img/s on two cores beside one busy process, and to 141 with threads that
sleep; those cost 17 % on the idle machine. A container's share of a machine (cgroup's CPU quota) counts in time, not in
cores: more threads than it has time for stall each other likewise.

Linux says how many threads run on the machine, not on which cores: two jobs pinned to the same few cores of many are
not noticed.
"""

import math
import os
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

SAMPLES, APART_S = 7, 0.01
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
CHOSEN_BY_OTHERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
COUNTED_BY_OTHERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
ONLY_TOLD = {"-h", "--help", "--version"}  # words of a command line that end the command with a text
SAID = "FASTRES_THREADS_WAIT"  # for the processes that this one starts: they find it chosen, with the reason
CGROUP, CORES = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")


def settings(threads: int, cores: int, others: float, share: float | None) -> tuple[dict[str, str], str]:
    """Variables for the environment, and why, in words ("" where nothing is chosen).

    threads   as many as torch would take
    cores     of the machine
    others    cores that other work has right now
    share     of the machine in cores that this process may have at most; None: all
    """
    chosen: dict[str, str] = {}
    reasons = []
    if share is not None and share < threads:
        threads = max(1, math.floor(share))
        chosen["OMP_NUM_THREADS"] = str(threads)
        reasons.append(f"{threads} threads, as this container has {share:g} cores' time")
    if threads > 1 and cores - others < threads:
        chosen |= ASLEEP
        reasons.append(
            f"threads sleep where they wait: other work has {others:g} of {cores} cores; slower on an idle machine, "
            "where GOMP_SPINCOUNT=300000 lets them spin"
        )
    return chosen, "; ".join(reasons)


def choose(environment: MutableMapping[str, str] = os.environ, arguments: Sequence[str] | None = None) -> None:
    """Settle it for this process and those that it starts; what the user has set stays. Nothing is counted for a
    command that computes nothing. arguments: by default the command line's."""
    if not ONLY_TOLD.isdisjoint(sys.argv[1:] if arguments is None else arguments):
        return
    if SAID in environment or any(name in environment for name in CHOSEN_BY_OTHERS):
        return
    told = [int(text) for name in COUNTED_BY_OTHERS if (text := environment.get(name, "")).isdecimal()]
    threads = min([*told, _cores_of_our_own()])
    if threads < 2:
        return
    chosen, why = settings(threads, os.cpu_count() or 1, taken_by_others(), None if told else share_of_time())
    environment.update(chosen)
    if why:
        environment[SAID] = why


def said() -> str:
    """Why threads wait as they do, where `choose` has chosen; else ""."""
    return os.environ.get(SAID, "")


def policy(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that say how threads wait, those that are set: {} where OpenMP's own default holds, spinning."""
    return {name: environment[name] for name in CHOSEN_BY_OTHERS if name in environment}


def as_here() -> dict[str, str]:
    """What the processes that this one starts need to wait as it does, whatever else runs when they start."""
    return {SAID: said()}


def _cores_of_our_own() -> int:
    """As many threads as torch takes: a physical core each, of those that this process may use."""
    allowed = os.sched_getaffinity(0)
    try:
        return len({(CORES / f"cpu{c}/topology/thread_siblings_list").read_text() for c in allowed})
    except OSError:
        return len(allowed)


def taken_by_others() -> float:
    """Cores that other work has: the median of what the kernel counts as running, without this process."""
    found = []
    for _ in range(SAMPLES):
        try:
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
        except (OSError, IndexError):
            return 0.0
        found.append(max(0.0, int(running) - 1.0))
        time.sleep(APART_S)
    return sorted(found)[SAMPLES // 2]


def share_of_time(cgroup: Path = CGROUP) -> float | None:
    """Cores' time that the container may have, by cgroup v2 or v1; None without a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError):  # not this version, or "max"
            continue
    return None
