"""Signals that end a process end a command with a word and exit code 75, whenever they come: SIGTERM, SIGINT, SIGHUP,
and SIGUSR1, SIGUSR2 and SIGXCPU, which schedulers send before a job's time is over.

While a run trains they ask for a checkpoint and a stop; elsewhere the command cleans up; before it has begun, in the
seconds that its imports take, there is nothing to clean. A second one ends the process at once.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from fastres.machine.errors import Preempted

ALWAYS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
ECHO_S = 0.2  # Linux repeats the signal of a parent's death for each of the parent's threads; nobody asks so fast twice


class Interrupted(KeyboardInterrupt):
    """A signal ended a command that has nothing to save; `name`: SIGTERM, say."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


def heard() -> tuple[int, ...]:
    """The signals that end us: SIGHUP, a closed terminal, only where nohup does not ask to outlive it."""
    outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return ALWAYS if outlives else (*ALWAYS, signal.SIGHUP)


def _install(handle: Callable) -> dict:
    """Returns what handled them before. Only the main thread may handle signals: in others, nothing is installed."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handle) for number in heard()}


def _put_back(number: int, handler) -> None:
    if handler is not None:  # None: not set from Python, which cannot set it again
        signal.signal(number, handler)


def leave_at_once() -> None:
    """From here on, until the command begins, a signal ends the process with a word instead of a traceback."""
    _install(_leave)


def _leave(number: int, _frame) -> None:
    with contextlib.suppress(OSError):
        name = signal.Signals(number).name
        os.write(2, f"error: stopped by {name} before anything began; run the same command again\n".encode())
    os._exit(Preempted.exit_code)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While entered, the first signal raises Interrupted, so that `finally` and `with` clean up."""
    asked = 0.0

    def handle(number: int, _frame) -> None:
        nonlocal asked
        now = time.monotonic()
        if not asked:
            asked = now
            raise Interrupted(number)
        if now - asked > ECHO_S:
            os._exit(Preempted.exit_code)

    before = _install(handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            _put_back(number, signal.SIG_DFL if handler is _leave else handler)


class StopRequest:
    """While entered, the first signal only sets `requested`; the loop looks at it after every step."""

    def __init__(self) -> None:
        self.requested = False
        self._asked = 0.0  # when
        self._previous: dict = {}

    def agreed(self) -> bool:
        """Whether to stop here; with several processes all ask at the same points and get the same answer."""
        return self.requested

    def check(self) -> None:
        """Preempted if a stop was asked for; for moments when everything is saved."""
        if self.requested:
            raise Preempted("stopped by a signal; the same command goes on from the last checkpoint")

    def __enter__(self) -> "StopRequest":
        self._previous = _install(self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            _put_back(number, handler)

    def _handle(self, number: int, _frame) -> None:
        now = time.monotonic()
        if self.requested and now - self._asked > ECHO_S:
            before = self._previous.get(number)
            if callable(before) and getattr(before, "__module__", "") != __name__:  # a notebook's, another program's
                before(number, _frame)
                return
            os._exit(Preempted.exit_code)
        if not self.requested:
            self.requested, self._asked = True, now
