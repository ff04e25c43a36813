"""What goes wrong in a user's hands: one sentence, one exit code, no traceback.

Exit codes: 0 done, 2 usage or config, 3 data, 4 environment, 5 diverged, 75 preempted (resumable).
A message names the file, what was found, what was expected, and the remedy.
Anything that is not a FastresError is a bug and keeps its traceback.
"""

import os
import sys
from collections.abc import Callable


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


def run_command(main: Callable[[], int | None]) -> int:
    """Call `main`, turning a FastresError into its sentence on stderr and its exit code."""
    try:
        return main() or 0
    except FastresError as error:
        if not error.said:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `... | head`: the reader left, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("error: interrupted; the same command starts again where it can", file=sys.stderr)
        return Preempted.exit_code
