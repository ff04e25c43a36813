"""Real processes for tests: several on gloo, forked from a server that has imported everything, so each is cheap; and
one of a program.
"""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from torch.distributed import TCPStore

PRELOADED = [
    "tests.support.sharing",
    "tests.support.processes",
    "fastres.views.numba_views",
    "matplotlib.backends.backend_agg",
]
LIMIT_S = 120


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets for a process on one machine; like torchrun, whoever starts the processes has the store."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def together(size: int, work: Callable, *arguments) -> list:
    """`work(*arguments)` in `size` processes of one world; their JSON results by rank. `work`: a module's function.

    What a process prints to stderr and how it ended is in the AssertionError where one fails.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        started = [
            context.Process(target=_process, args=(environment(rank, size, store.port), folder, work, arguments))
            for rank in range(size)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(LIMIT_S)
        codes = [process.exitcode for process in started]
        for process in started:
            process.kill()
        said = "\n".join(path.read_text() for path in sorted(Path(folder).glob("*.txt")))
        assert codes == [0] * size, f"exit codes {codes}\n{said}"
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(size)]


def _process(variables: dict[str, str], folder: str, work: Callable, arguments: tuple) -> None:
    os.environ.update(variables)
    rank = variables["RANK"]
    with open(Path(folder) / f"{rank}.txt", "w") as said, contextlib.redirect_stderr(said):
        try:
            result = work(*arguments)
        except BaseException:
            traceback.print_exc()
            said.flush()
            os._exit(1)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # without the exit hooks of a process that was forked


def start(code: str, *arguments) -> subprocess.Popen:
    """A second real process of this project, ready when it has printed a line."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
