"""What goes wrong in a user's hands: one sentence, one exit code, no traceback.

Exit codes: 0 done, 2 usage or config, 3 data, 4 environment, 5 diverged, 75 preempted (resumable).
A message names the file, what was found, what was expected, and the remedy.
An exception of the machine that nobody foresaw (no memory, a disk that fails) is told in one sentence too, with its
traceback in a file. Anything else is a bug and keeps its traceback.
"""

import errno
import tempfile
import traceback
from pathlib import Path


class FastresError(Exception):
    """A fault with a remedy; `exit_code` is what the command returns. `said`: another process printed it already."""

    exit_code = 1
    said = False


class UsageError(FastresError):
    """The command line or the configuration is off."""

    exit_code = 2


class DataError(FastresError):
    """A data set, packed file, weights file or checkpoint is not what it should be."""

    exit_code = 3


class MachineError(FastresError):
    """The machine lacks something: a device, a library, disk space, a permission, the network."""

    exit_code = 4


class Diverged(FastresError):
    """Training produced a loss that is not finite."""

    exit_code = 5


class Preempted(FastresError):
    """A signal asked the run to stop; the same command resumes it."""

    exit_code = 75


# What torch raises on a CPU that has no memory left; on a GPU it has a class for it, which is a RuntimeError as well.
_TORCHS_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free some memory",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "choose a folder that can be written",
    errno.EIO: "check the disk",
}


def of_the_machine(error: BaseException) -> bool:
    """Whether an exception is the machine's fault and not our code's."""
    if isinstance(error, FastresError):
        return False
    if isinstance(error, OSError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCHS_MEMORY)


def first_line(error: BaseException) -> str:
    """What an exception of some library says, for a sentence: its text's first line; of one without words its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def machine_fault(error: BaseException, folder: Path | None = None) -> MachineError:
    """The sentence for an exception of the machine; its traceback is in `folder`, or where no file can be written
    there, among the temporary files."""
    where = _keep_traceback(error, folder)
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        what = f"{file}{error.strerror or error or type(error).__name__}"
        remedy = _REMEDIES.get(error.errno, "check what the sentence names")
    else:
        what = f"not enough memory ({first_line(error)})"
        remedy = "free some memory, or use a smaller batch"
    return MachineError(f"{what}; {remedy}, then run the same command again; {where}")


def _keep_traceback(error: BaseException, folder: Path | None) -> str:
    """Write it down; returns where, in words."""
    text = "".join(traceback.format_exception(error))
    for place in (folder, Path(tempfile.gettempdir())):
        if place is None:
            continue
        try:
            handle, name = tempfile.mkstemp(".txt", "traceback-", place)
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return f"its traceback is in {name}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"its traceback could not be written; it ended in {last.name}, line {last.lineno} of {Path(last.filename).name}"
    )


def kind_of(exit_code: int) -> type[FastresError]:
    """The fault that ends with this code, as another process named it."""
    return next((kind for kind in FastresError.__subclasses__() if kind.exit_code == exit_code), FastresError)
