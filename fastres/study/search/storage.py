"""Where Optuna keeps a search: a file of SQLite's, and its faults as sentences."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fastres.machine.errors import DataError, MachineError, UsageError, first_line

PATIENCE_S = 60.0  # for another process of the search that writes


def open_storage(file: Path):
    """Optuna's storage in `file`. SQLite gets the path itself: in a URL, a ? or # of its name would end it."""
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import QueuePool

    if file.is_symlink():
        raise UsageError(f"{file}: is a symbolic link, expected a search's file or nothing; choose another --out")

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=PATIENCE_S, check_same_thread=False)

    return RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": QueuePool})


@contextlib.contextmanager
def storage_faults(file: Path) -> Iterator[None]:
    """What SQLite or Optuna raise over `file` while entered: MachineError where it is locked or cannot be read and
    written, DataError where it is no search's file."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, StorageInternalError) as error:
        cause = _first(error)
        if isinstance(cause, sqlite3.OperationalError) and "no such" not in str(cause):
            raise MachineError(
                f"{file}: the search's file cannot be used ({cause}), expected to read and write it; end whatever "
                "holds it, check the disk, and the same command goes on"
            ) from error
        raise DataError(
            f"{file}: is damaged or no search's file ({first_line(cause)}); restore it, or choose another --out"
        ) from error


def _first(error: BaseException) -> BaseException:
    """SQLite's own error at the bottom of a chain, else the error itself."""
    below = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return error if isinstance(error, sqlite3.Error) or below is None else _first(below)
