"""The output folder while it is being filled: one packer at a time, final names only for whole files.

Everything is written into <out>/.packing and renamed when all of it is on the disk; the manifest comes
last. Killed before the renames, the folder is as it was; killed among them, it has no manifest but whole
files, and the next run makes it anew. The lock is the kernel's and dies with its process.
What is not ours is not touched: ours is what a manifest or a state of ours in the folder lists, see owned.py.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import IO

from fastres.data import manifest as manifests
from fastres.machine.errors import UsageError
from fastres.machine.files import read_regular, sweep, sync_folder, write_atomic
from fastres.machine.lock import take_named
from preprocess.disk import disk_faults, require_space
from preprocess.owned import BAD_IMAGES, STATE, owned, refuse_foreign, refuse_packing_of_others, refuse_taken

LOCK = ".pack.lock"


class Staging:
    """A locked output folder; a context manager that leaves no trace of a failure."""

    def __init__(self, out: Path):
        self.out = out
        self.folder = out / ".packing"

    def __enter__(self) -> "Staging":
        with disk_faults(self.out):
            self._made = not self.out.exists()
            self.out.mkdir(parents=True, exist_ok=True)
            refuse_foreign(self.out)
            refuse_packing_of_others(self.out, self.folder, LOCK)
            self._lock = self._take_lock()
            try:
                shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed
                sweep(self.out)
                self.folder.mkdir()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.out / LOCK).unlink(missing_ok=True)
        self._lock.close()
        if self._made:
            with contextlib.suppress(OSError):  # not empty, as it should be after a success
                self.out.rmdir()

    def _take_lock(self) -> IO:
        """An open, locked <out>/.pack.lock with our number. UsageError while another process has it."""
        path = self.out / LOCK
        lock = take_named(path)
        if lock is None:
            holder = ""
            with contextlib.suppress(OSError):  # gone by now
                holder = read_regular(path, 32).decode(errors="replace")
            raise UsageError(
                f"{self.out}: found another packer at work (process {holder or 'unknown'}), expected none; wait for it "
                "or choose another --out"
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}".encode())
        lock.flush()
        return lock

    def require_space(self, needed: int) -> None:
        require_space(self.out, needed)

    def publish(self, manifest: manifests.Manifest, possible: set[str], bad: list[tuple[str, str]]) -> None:
        """Give every file of the manifest its final name, remove what else is ours, write the manifest last.

        possible: names that any format of ours may have. UsageError, with nothing changed, where something that is not
        ours has one of the names.
        """
        if bad:
            lines = "".join(f"{path}\t{reason}\n" for path, reason in bad)
            (self.folder / BAD_IMAGES).write_text(lines, encoding="utf-8")
        new = [*manifest.files, *([BAD_IMAGES] if bad else [])]
        refuse_taken(self.out, new)
        before = owned(self.out) & {*possible, BAD_IMAGES}
        self._note({"publishing": sorted({*before, *new})})  # killed from here on, they are still known as ours
        for name in (manifests.FILE_NAME, *sorted(before.difference(new))):
            (self.out / name).unlink(missing_ok=True)
        for name in new:
            os.replace(self.folder / name, self.out / name)
        sync_folder(self.out)
        manifests.save_manifest(self.out, manifest)

    def remember(self, request: dict, names: list[str]) -> None:
        """Note what was asked, and the outputs as they lie on the disk now."""
        self._note({"request": request, "outputs": _stats(self.out, names)})

    def _note(self, state: dict) -> None:
        write_atomic(self.out / STATE, (json.dumps(state, indent=1) + "\n").encode())


def _stats(folder: Path, names: list[str]) -> dict[str, list[int]]:
    status = {name: (folder / name).stat() for name in names}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ino] for name, s in status.items()}


def remembered(out: Path) -> dict | None:
    """The request that `out` was packed for, if every output still lies there untouched (size, time, inode)."""
    try:
        state = json.loads((out / STATE).read_text(encoding="utf-8"))
        untouched = state["outputs"] == _stats(out, list(state["outputs"]))
        return dict(state["request"]) if untouched else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
