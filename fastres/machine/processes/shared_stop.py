"""One signal, several processes: all of them stop after the same step."""

import os
import signal
import time
from collections.abc import Callable

from fastres.machine.errors import Preempted
from fastres.machine.processes.noticeboard import Noticeboard
from fastres.machine.processes.signals import StopRequest

SAME_REQUEST_S = 10  # torchrun hands on a signal that SLURM sends to every process itself


class SharedStop(StopRequest):
    """A signal to one process, or to torchrun, stops all of them after the same step."""

    def __init__(self, any_of_all: Callable[[bool], Callable[[], bool]], board: Noticeboard) -> None:
        """`any_of_all`: starts asking whether a flag is set in any process, and returns what waits for the answer."""
        super().__init__()
        self._any_of_all, self._board = any_of_all, board
        self._pending, self._since = None, 0.0

    def agreed(self) -> bool:
        """What was asked for by the call before this one: the answer travels while a step is computed."""
        before, self._pending = self._pending, self._any_of_all(self.requested)
        return before() if before else False

    def check(self) -> None:
        """Needs no other process at the same point, so each may have its own number of evaluation batches."""
        if self.requested:
            self._board.ask_to_stop()
        self._board.look()

    def __exit__(self, *_) -> None:
        """The first to leave makes torchrun send SIGTERM to the others, which are leaving too."""
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _frame) -> None:
        now = time.monotonic()
        if self.requested and now - self._since > SAME_REQUEST_S:
            os._exit(Preempted.exit_code)
        self._since = self._since if self.requested else now
        self.requested = True
