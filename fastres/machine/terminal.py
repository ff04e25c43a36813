"""The terminal is not the run: what is printed may be lost, without a word, and nothing that works notices.

A reader that leaves (`... 2>&1 | head`), a closed terminal, a full disk behind `> log.txt`, an encoding that lacks a
character: none of them raises into whoever prints. What cannot be shown is escaped, and so are the control characters
in a file's or a class's name, which would move the cursor or recolour the screen.
"""

import errno
import io
import os
import re
import sys

TQDMS = "\x1b[A"  # the one sequence that progress bars use, beside the carriage return
# Control characters but tab and newline, and the marks that turn the direction of writing.
UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
UNSHOWN_BUT_BARS = re.compile(f"{re.escape(TQDMS)}|\r|{UNSHOWN.pattern}")


def escaped(text: str) -> str:
    """`text` with its control characters written out (\\x1b), newlines and tabs left."""
    return UNSHOWN.sub(_written_out, text)


def _written_out(match: re.Match) -> str:
    found = match[0]
    return found if found in (TQDMS, "\r") and match.re is UNSHOWN_BUT_BARS else ascii(found)[1:-1]


class _Device(io.BufferedIOBase):
    """A file descriptor whose faults are kept in `fault` and not raised.

    It keeps nothing back: a signal that is answered by an exception would have a buffer written twice.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.fault = descriptor, None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, content) -> int:
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BlockingIOError:  # whoever reads has made it so, and is slow: the rest is lost
            pass
        except OSError as error:
            self.fault = error
        return len(content)


class Stream(io.TextIOWrapper):
    """stdout or stderr, as print uses it. It never raises for what is written to it."""

    def __init__(self, descriptor: int, encoding: str, *, bars: bool) -> None:
        """`bars`: progress bars may be drawn on it."""
        self.device, self._unshown = _Device(descriptor), UNSHOWN_BUT_BARS if bars else UNSHOWN
        super().__init__(self.device, encoding, errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        super().write(self._unshown.sub(_written_out, text))
        return len(text)


def protect() -> None:
    """Put such streams in the place of Python's own; once a process. Where others stand in it (a test's), nothing."""
    for descriptor in range(3):  # a closed one would be the number of the next file that is opened, and printed into
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = Stream(1, getattr(sys.stdout, "encoding", "utf-8"), bars=False)
    if sys.stderr is sys.__stderr__:
        sys.stderr = Stream(2, getattr(sys.stderr, "encoding", "utf-8"), bars=True)


def lost_output() -> OSError | None:
    """Why stdout lacks some of what was printed; None where it lacks nothing, or whoever read it has left."""
    if not isinstance(sys.stdout, Stream):
        return None
    sys.stdout.flush()
    fault = sys.stdout.device.fault
    return None if fault is None or fault.errno == errno.EPIPE else fault


def forgive_output() -> None:
    """What stdout lacks is nobody's loss: it is kept elsewhere."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.device.fault = None
