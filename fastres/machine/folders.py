"""Whose a folder is: what a user put there himself is never overwritten, and what holds nothing is nobody's."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from fastres.machine.errors import UsageError
from fastres.machine.files import ours, read_regular

SHOWN = 3  # names in a refusal
OF_A_RUN = (
    *("config.json", "log.jsonl", "summary.json", "shifted.json", "lock"),
    *("*.safetensors", "checkpoints/*", "stages/*", "wandb/*"),
)


def strangers(folder: Path, is_ours: Callable[[Path], bool] = lambda _: False) -> list[str]:
    """Names in `folder` of what holds something and is not ours; names that begin with a dot are left out.

    [] where there is no such folder. Nothing is lost with an empty file, as a shell makes one for a command's output,
    or with a folder of nothing else.
    """
    if not folder.is_dir():
        return []
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path.name for path in visible if _holds_something(path) and not is_ours(path))


def _holds_something(path: Path) -> bool:
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) or (stat.S_ISLNK(status.st_mode) and path.is_dir()):
            return any(map(_holds_something, path.iterdir()))
        return not stat.S_ISREG(status.st_mode) or status.st_size > 0
    except FileNotFoundError:  # another process has just removed it
        return False


def files_of_run(run: Path) -> list[Path]:
    """What a run keeps in its folder, which no other command's output may replace."""
    return [path for pattern in OF_A_RUN for path in run.glob(pattern)]


def refuse_onto(option: str, out: Path | None, inputs: Iterable[Path], is_ours: Callable[[bytes], bool]) -> None:
    """UsageError where the file `out`, which `option` names, could not be written, would replace one of `inputs` or a
    file of some run, or holds something that is not as this command writes it: `is_ours` knows that by its bytes."""
    if out is None:
        return
    around = out.absolute().parent
    if not around.is_dir():
        raise UsageError(f"{option} {out}: there is no folder {around}; make it, or name another file")
    if not os.path.lexists(out):
        return
    if not stat.S_ISREG(out.lstat().st_mode):
        kind = "a folder" if out.is_dir() else "a symbolic link" if out.is_symlink() else "a device or a pipe"
        raise UsageError(f"{option} {out}: found {kind} of that name, expected a file or nothing; name another file")
    if any(file.exists() and out.samefile(file) for file in inputs):
        raise UsageError(f"{option} {out}: would overwrite what this command reads; name another file")
    for run in (around, around.parent):
        if (run / "config.json").is_file() and any(out.samefile(file) for file in files_of_run(run)):
            raise UsageError(f"{option} {out}: is a file of the run in {run}; name another file")
    if out.stat().st_size and not is_ours(read_regular(out)):
        raise UsageError(f"{option} {out}: holds what this command does not write; name another file, or move it away")


def shown(names: list[str]) -> str:
    """The first few, for a sentence."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def claim(folder: Path, mark: str, what: str, was_ours: Callable[[], bool] = lambda: False) -> None:
    """Make `folder`, with an empty file `mark` in it that says whose it is. UsageError where it holds something and has
    no such mark: `what` says what was expected. `was_ours` knows folders of older versions, which have none."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, expected {what}, or no such folder; choose another --out")
    found = strangers(folder)  # before the mark: who makes the folder in this moment writes that first
    if found and not (folder / mark).is_file() and not was_ours():
        raise UsageError(
            f"{folder}: holds {shown(found)}, expected {what}, or an empty folder; nothing was changed there, choose "
            "another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / mark, "ab", opener=ours):
        pass
