"""A run's folder: lock, config.json, log.jsonl, summary.json, checkpoints/, pictures/.

One folder is one run of one configuration. Opening it takes a lock that the kernel gives back when the
process dies, however it dies, and refuses a folder that holds a run of another configuration, or something that is no
run at all.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from fastres.machine.errors import MachineError, UsageError
from fastres.machine.files import ours, sweep, write_atomic
from fastres.machine.lock import take
from fastres.track.log import JsonLines, NoLines
from fastres.track.run_config import as_json, read_object, refuse_foreign, settle_config


class RunDir:
    """A run's folder: lock, config, log, summary, checkpoints, pictures; made by `RunDir.open`."""

    def __init__(self, path: Path, lock: IO[str], config: dict, before: dict):
        self.path = path
        self.config = config  # as config.json holds it
        self.before = before  # what was in it instead, of the keys that may change
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self._lock, self._identity = lock, path.stat()
        for folder in (self.checkpoints, self.pictures):
            folder.mkdir(exist_ok=True)
        self.log = JsonLines(path / "log.jsonl")

    @classmethod
    def open(cls, path: Path, config: dict, may_change: Sequence[str] = ()) -> "RunDir":
        """Open or create the folder of the run that `config` describes; the keys `may_change` may have new values.

        Raises MachineError where it cannot be created or written, UsageError where another live process holds
        it or where it holds a run of another configuration or is no run's, DataError where its config.json is damaged.
        """
        path = Path(path)
        try:
            refuse_foreign(path, config)
            path.mkdir(parents=True, exist_ok=True)
            lock = open(path / "lock", "a+", encoding="utf-8", opener=ours)  # noqa: SIM115 (held as long as the run)
        except OSError as error:
            raise _not_writable(path, error.strerror) from error
        try:
            _take(lock, path)
            if not os.access(path, os.W_OK | os.X_OK):
                raise _not_writable(path, "no right to create files in it")
            settled, before = settle_config(path, config, may_change)
            for folder in (path, *(path / name for name in ("checkpoints", "pictures", "stages", "wandb"))):
                sweep(folder)
            return cls(path, lock, settled, before)
        except OSError as error:
            lock.close()
            raise _not_writable(path, error.strerror) from error
        except BaseException:
            lock.close()
            raise

    @property
    def finished(self) -> bool:
        """Whether the run is done, by its summary."""
        return (self.summary() or {}).get("status") == "done"

    def summary(self) -> dict | None:
        """summary.json, or None where there is none yet; DataError where it is damaged."""
        return read_object(self.path / "summary.json", "remove it, and the same command writes it again")

    def write_summary(self, summary: dict) -> None:
        """Replace summary.json atomically; numbers that are not finite become null."""
        write_atomic(self.path / "summary.json", as_json(summary))

    def forget_summary(self) -> None:
        """Remove summary.json, if there is one."""
        try:
            (self.path / "summary.json").unlink(missing_ok=True)
        except OSError as error:
            raise _not_writable(self.path, error.strerror) from error

    def check_there(self) -> None:
        """MachineError where the folder was removed, moved, emptied or replaced meanwhile: what is written now is lost,
        or comes among what another run writes."""
        if not self.there:
            raise MachineError(
                f"{self.path}: the run folder was removed, moved or emptied while the run went on, with what was "
                "trained; put it back, and the same command resumes, or starts anew where there is none"
            )

    @property
    def there(self) -> bool:
        """Whether the folder is still this run's: another may have begun in one that was emptied, with a new lock."""
        try:
            lock = os.path.samestat((self.path / "lock").stat(), os.fstat(self._lock.fileno()))
            return lock and os.path.samestat(self.path.stat(), self._identity)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the log and give the lock back; closing twice is fine."""
        self.log.close()
        self._lock.close()

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class FollowedRunDir:
    """The folder as the other processes of a run see it: they read what the first one writes, and write nothing."""

    def __init__(self, path: Path, config: dict):
        self.path, self.config = Path(path), config
        self.checkpoints, self.pictures = self.path / "checkpoints", self.path / "pictures"
        self.log = NoLines()

    finished = RunDir.finished
    summary = RunDir.summary

    def write_summary(self, summary: dict) -> None: ...

    def forget_summary(self) -> None: ...

    there = True

    def check_there(self) -> None: ...

    def __enter__(self) -> "FollowedRunDir":
        return self

    def __exit__(self, *_) -> None: ...


def live_process(path: Path) -> int | None:
    """The process that holds the lock of the run folder `path`, None where none on this machine does.

    Read from the kernel's list of locks: to try the lock would make a run that starts in that moment refuse its folder.
    The number is that of our own machine or container: a container's run wrote another one into its lock. Of another
    container's run the list has nothing.
    """
    try:
        pid, status = (path / "lock").read_text().strip(), (path / "lock").stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"  # some file systems list another one
        for line in Path("/proc/locks").read_text().splitlines():  # 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF
            words = line.split()
            listed, _, inode = words[5].rpartition(":")
            if words[1] == "FLOCK" and inode == str(status.st_ino) and (listed == device or words[4] == pid):
                return int(words[4])
    except (OSError, ValueError, IndexError):
        return None
    return None


def _take(lock: IO[str], path: Path) -> None:
    """Hold the lock and write this process's id into it."""
    if not take(lock):
        lock.seek(0)
        holder = lock.read().strip() or "not yet written"
        raise UsageError(
            f"{path}: a live process (pid {holder}) is running in this folder; wait for it, "
            f"stop it, or choose another --run-dir"
        )
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _not_writable(path: Path, reason: str | None) -> MachineError:
    return MachineError(f"{path}: the run folder cannot be created or written ({reason}); choose another --run-dir")
