"""The study's data, packed by the packer's own command; and how long the small world's schedules are."""

import subprocess
import sys
from pathlib import Path

import fastres
from fastres.machine.console import say
from fastres.machine.errors import FastresError, MachineError

# Epochs of the demo's stages times this, so that two cores carry all systems in half an hour.
SCALE = 2 / 3


def pack(out: Path, what: str, *arguments: str) -> Path:
    """Pack into `out` for the resident engine, by preprocess/pack.py with `arguments`. Returns `out`."""
    script = Path(fastres.__file__).parents[1] / "preprocess" / "pack.py"
    if not script.is_file():
        raise MachineError(f"{script}: not there; run the study from a checkout of the project, which has preprocess/")
    say(f"packing {what} into {out}")
    command = [sys.executable, str(script), *arguments, "--out", str(out), "--engines", "resident"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise fault_of(done.returncode, done.stderr.strip().splitlines()[-1:] or ["no message"])
    return out


def fault_of(code: int, lines: list[str]) -> FastresError:
    """The sentence and the exit code of a command of ours that failed."""
    fault = FastresError("".join(lines).removeprefix("error: "))
    fault.exit_code = code if code > 0 else MachineError.exit_code
    return fault
