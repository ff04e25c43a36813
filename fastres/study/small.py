"""The study's small world: how long its schedules are, and its data packed."""

import subprocess
import sys
from pathlib import Path

import fastres
from fastres.errors import FastresError, MachineError
from fastres.track.console import say

# Epochs of the demo's stages times this, so that two cores carry all systems in half an hour.
SCALE = 2 / 3


def pack(out: Path, part: str) -> Path:
    """Render and pack a part of the world into `out`, by preprocess/pack.py. Returns `out`."""
    script = Path(fastres.__file__).parents[1] / "preprocess" / "pack.py"
    if not script.is_file():
        raise MachineError(f"{script}: not there; run the study from a checkout of the project, which has preprocess/")
    say(f"packing the small world's {part} into {out}")
    command = [sys.executable, str(script), "--small-world", part, "--out", str(out), "--engines", "resident"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise fault_of(done.returncode, done.stderr.strip().splitlines()[-1:] or ["no message"])
    return out


def fault_of(code: int, lines: list[str]) -> FastresError:
    """The sentence and the exit code of a command of ours that failed."""
    fault = FastresError("".join(lines).removeprefix("error: "))
    fault.exit_code = code if code > 0 else MachineError.exit_code
    return fault
