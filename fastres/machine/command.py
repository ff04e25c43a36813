"""How a command's process begins and ends: with its streams protected, with one sentence, with an exit code."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from fastres.machine import terminal
from fastres.machine.errors import FastresError, MachineError, Preempted, machine_fault, of_the_machine
from fastres.machine.processes.signals import Interrupted, interruptible


def run_command(main: Callable[[], int | None]) -> int:
    """Call `main`; a FastresError, a signal, and what is the machine's fault become a sentence and an exit code."""
    terminal.protect()
    os.environ.pop("MPLBACKEND", None)  # matplotlib's import fails on an unknown one, and no command opens a window
    try:
        with interruptible():
            code = main() or 0
    except FastresError as error:
        if not error.said:
            _tell(str(error))
        return error.exit_code
    except (OSError, MemoryError, RuntimeError) as error:
        if not of_the_machine(error):
            raise
        _tell(str(machine_fault(error)))
        return MachineError.exit_code
    except KeyboardInterrupt as stopped:
        by = f" by {stopped.name}" if isinstance(stopped, Interrupted) else ""
        _tell(f"stopped{by}; the same command starts again where it can")
        return Preempted.exit_code
    if code == 0 and (lost := terminal.lost_output()):
        _tell(
            f"standard output could not be written ({lost.strerror}); send it elsewhere and run the same command again"
        )
        return MachineError.exit_code
    return code


Given = ParamSpec("Given")
Found = TypeVar("Found")


def told(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """For functions that callers in Python use: what is the machine's fault is raised as a MachineError."""

    @wraps(function)
    def called(*given: Given.args, **named: Given.kwargs) -> Found:
        try:
            return function(*given, **named)
        except (OSError, MemoryError, RuntimeError) as error:
            if not of_the_machine(error):
                raise
            raise machine_fault(error) from error

    return called


def _tell(sentence: str) -> None:
    print(terminal.escaped(f"error: {sentence}"), file=sys.stderr, flush=True)
