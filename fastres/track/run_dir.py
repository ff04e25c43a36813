"""A run's folder: lock, config.json, log.jsonl, summary.json, checkpoints/, pictures/.

One folder is one run of one configuration. Opening it takes a lock that the kernel gives back when the
process dies, however it dies, and refuses a folder that holds a run of another configuration.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from fastres.errors import DataError, MachineError, UsageError
from fastres.files import sweep, write_atomic
from fastres.track.log import JsonLines, NoLines, plain

SHOWN_DIFFERENCES = 12


class RunDir:
    """A run's folder: lock, config, log, summary, checkpoints, pictures; made by `RunDir.open`."""

    def __init__(self, path: Path, lock: IO[str], config: dict, before: dict):
        self.path = path
        self.config = config  # as config.json holds it
        self.before = before  # what was in it instead, of the keys that may change
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self._lock = lock
        for folder in (self.checkpoints, self.pictures):
            folder.mkdir(exist_ok=True)
        self.log = JsonLines(path / "log.jsonl")

    @classmethod
    def open(cls, path: Path, config: dict, may_change: Sequence[str] = ()) -> "RunDir":
        """Open or create the folder of the run that `config` describes; the keys `may_change` may have new values.

        Raises MachineError where it cannot be created or written, UsageError where another live process holds
        it or where it holds a run of another configuration, DataError where its config.json is damaged.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = open(path / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (held as long as the run)
        except OSError as error:
            raise _not_writable(path, error.strerror) from error
        try:
            _take(lock, path)
            if not os.access(path, os.W_OK | os.X_OK):
                raise _not_writable(path, "no right to create files in it")
            settled, before = _settle_config(path, config, may_change)
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
        write_atomic(self.path / "summary.json", _as_json(summary))

    def forget_summary(self) -> None:
        """Remove summary.json, if there is one."""
        try:
            (self.path / "summary.json").unlink(missing_ok=True)
        except OSError as error:
            raise _not_writable(self.path, error.strerror) from error

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

    def __enter__(self) -> "FollowedRunDir":
        return self

    def __exit__(self, *_) -> None: ...


def flatten(config: dict) -> dict:
    """A nested configuration as {"optimizer.lr": 0.01, "stages.0.epochs": 5, …}; empty ones stay values."""
    flat: dict = {}

    def walk(name: str, value) -> None:
        if isinstance(value, (dict, list)) and value:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                walk(f"{name}.{key}" if name else str(key), item)
        else:
            flat[name] = value

    for key, item in plain(config).items():
        walk(str(key), item)
    return flat


def differences(a: dict, b: dict) -> list[str]:
    """Lines such as "optimizer.lr: 0.01 in the folder, 0.02 now" for each value of `b` that is not `a`'s."""
    old, new = flatten(a), flatten(b)
    names = [*old, *(name for name in new if name not in old)]
    return [f"{name}: {_shown(old, name)} in the folder, {_shown(new, name)} now"
            for name in names if _shown(old, name) != _shown(new, name)]


def live_process(path: Path) -> int | None:
    """The process that holds the lock of the run folder `path`, None where none on this machine does.

    Read from the kernel's list of locks: to try the lock would make a run that starts in that moment refuse its folder.
    """
    try:
        pid, inode = (path / "lock").read_text().strip(), (path / "lock").stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():  # 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[4] == pid and words[5].endswith(f":{inode}"):
                return int(pid)
    except (OSError, ValueError, IndexError):
        return None
    return None


def _shown(flat: dict, name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "not set"


def _take(lock: IO[str], path: Path) -> None:
    """Hold the lock and write this process's id into it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "not yet written"
        raise UsageError(f"{path}: a live process (pid {holder}) is running in this folder; wait for it, "
                         f"stop it, or choose another --run-dir") from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _settle_config(path: Path, config: dict, may_change: Sequence[str]) -> tuple[dict, dict]:
    """Write config.json where it is new; where it stands, it must say the same but for the keys `may_change`.

    Returns what it holds, and what it held before of the keys that changed.
    """
    file = path / "config.json"
    stored = read_object(file, "choose another --run-dir, or remove this folder to start over")
    if stored is None:
        write_atomic(file, _as_json(config))
        return plain(config), {}
    changed = {key: config[key] for key in may_change if stored.get(key) != config[key]}
    different = differences(stored | changed, config)
    if different:
        more = len(different) - SHOWN_DIFFERENCES
        lines = different[:SHOWN_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])
        raise UsageError(f"{path}: holds a run of another configuration; choose another --run-dir, or give "
                         f"the same values again:\n  " + "\n  ".join(lines))
    if changed and (read_object(path / "summary.json", "remove it") or {}).get("status") != "done":
        write_atomic(file, _as_json(stored | changed))
    return stored | changed, {key: stored.get(key) for key in changed}


def read_object(file: Path, remedy: str) -> dict | None:
    """The JSON object in `file`, None where there is no such file; DataError with `remedy` where it is none."""
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{file}: is not JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: holds a {type(value).__name__}, expected a JSON object; {remedy}")
    return value


def _as_json(value: dict) -> bytes:
    return json.dumps(plain(value), indent=1, allow_nan=False).encode() + b"\n"


def _not_writable(path: Path, reason: str | None) -> MachineError:
    return MachineError(f"{path}: the run folder cannot be created or written ({reason}); "
                        f"choose another --run-dir")
