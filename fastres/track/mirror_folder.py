"""What the mirror keeps in a run's wandb folder beside W&B's own parts: the run's id, and which parts W&B has."""

import contextlib
import re
import secrets
import shlex
from pathlib import Path

from fastres.machine.files import ours, read_regular, write_atomic

_UPLOADED = "uploaded"  # names of the parts that W&B has, one a line
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def run_id(folder: Path) -> str:
    """The W&B run id of this run folder, drawn once, or again where the file holds what W&B would not take for one.

    MachineError where it cannot be written.
    """
    file = folder / "run_id"
    known = _text(file).strip()
    if not _ID.fullmatch(known):
        known = secrets.token_hex(4)
        write_atomic(file, f"{known}\n".encode())
    return known


def note_uploaded(folder: Path, part: str) -> None:
    """W&B has this part of the run. Where that cannot be written it is uploaded once more, and no harm is done."""
    with contextlib.suppress(OSError), open(folder / _UPLOADED, "a", opener=ours) as file:
        file.write(f"{part}\n")


def sync_command(folder: Path, run: str) -> str | None:
    """The `wandb sync` command for every part of the run that W&B does not have, those before a resume included; None
    where it has all."""
    sent = _text(folder / _UPLOADED).split()
    parts = sorted(
        part
        for part in folder.glob(f"*run-*-{run}")
        if part.is_dir() and part.name not in sent and not any(part.glob("*.synced")) and any(part.glob("*.wandb"))
    )
    if not parts:
        return None
    online = any(part.name.startswith("run-") for part in parts)  # W&B takes such a run for one still sending
    return shlex.join(["wandb", "sync", *(["--include-online"] if online else []), *map(str, parts)])


def _text(file: Path) -> str:
    """What is in a file; "" where there is none, or none to be read."""
    try:
        return read_regular(file).decode(errors="replace")
    except OSError:
        return ""
