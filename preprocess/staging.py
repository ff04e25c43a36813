"""The output folder while it is being filled: one packer at a time, final names only for whole files.

Everything is written into <out>/.packing and renamed when all of it is on the disk; the manifest comes
last. Killed before the renames, the folder is as it was; killed among them, it has no manifest but whole
files, and the next run makes it anew. The lock is the kernel's and dies with its process.
"""

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

from fastres.data import manifest as manifests
from fastres.errors import UsageError
from fastres.files import sweep, sync_folder, write_atomic
from preprocess.disk import disk_faults, require_space

LOCK = ".pack.lock"
STATE = ".pack-state.json"  # what the last run saw, to know that nothing has changed since
BAD_IMAGES = "bad-images.txt"


class Staging:
    """A locked output folder; a context manager that leaves no trace of a failure."""

    def __init__(self, out: Path):
        self.out = out
        self.folder = out / ".packing"

    def __enter__(self) -> "Staging":
        with disk_faults(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
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
        os.close(self._lock)
        with contextlib.suppress(OSError):  # not empty, as it should be after a success
            self.out.rmdir()

    def _take_lock(self) -> int:
        """An open, locked <out>/.pack.lock. UsageError while another process has it."""
        path = self.out / LOCK
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 32, 0).decode() or "unknown"
                os.close(handle)
                raise UsageError(
                    f"{self.out}: found another packer at work (process {holder}), expected none; wait for it "
                    "or choose another --out"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    os.pwrite(handle, f"{os.getpid()}".encode(), 0)
                    return handle
            os.close(handle)  # its last holder removed it while we opened it: that lock binds nobody

    def require_space(self, needed: int) -> None:
        require_space(self.out, needed)

    def publish(self, manifest: manifests.Manifest, stale: set[str], bad: list[tuple[str, str]]) -> None:
        """Give every file of the manifest its final name, remove those in `stale`, write the manifest last."""
        if bad:
            lines = "".join(f"{path}\t{reason}\n" for path, reason in bad)
            (self.folder / BAD_IMAGES).write_text(lines, encoding="utf-8")
        for name in (STATE, manifests.FILE_NAME, BAD_IMAGES, *sorted(stale - set(manifest.files))):
            (self.out / name).unlink(missing_ok=True)
        for name in (*manifest.files, *([BAD_IMAGES] if bad else [])):
            os.replace(self.folder / name, self.out / name)
        sync_folder(self.out)
        manifests.save_manifest(self.out, manifest)

    def remember(self, request: dict, names: list[str]) -> None:
        """Note what was asked, and the outputs as they lie on the disk now."""
        state = {"request": request, "outputs": _stats(self.out, names)}
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
