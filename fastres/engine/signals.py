"""SIGTERM and SIGINT ask for a checkpoint and a stop; a second one ends the process at once."""

import os
import signal

from fastres.errors import Preempted


class StopRequest:
    """While entered, the first signal only sets `requested`; the loop looks at it after every step."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict = {}

    def check(self) -> None:
        """Preempted if a stop was asked for; for moments when everything is saved."""
        if self.requested:
            raise Preempted("stopped by a signal; the same command goes on from the last checkpoint")

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        if self.requested:
            os._exit(Preempted.exit_code)
        self.requested = True
