"""SIGTERM and SIGINT ask for a checkpoint and a stop; a second one ends the process at once."""

import os
import signal
import time
from typing import TYPE_CHECKING

from fastres.errors import Preempted

if TYPE_CHECKING:
    from fastres.engine.distributed import Processes

ECHO_S = 0.2  # Linux repeats the signal of a parent's death for each of the parent's threads; nobody asks so fast twice
SAME_REQUEST_S = 10  # torchrun hands on a signal that SLURM sends to every process itself


class StopRequest:
    """While entered, the first signal only sets `requested`; the loop looks at it after every step."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

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
        self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        now = time.monotonic()
        if self.requested and now - self._asked > ECHO_S:
            os._exit(Preempted.exit_code)
        if not self.requested:
            self.requested, self._asked = True, now


class SharedStop(StopRequest):
    """A signal to one process, or to torchrun, stops all of them after the same step."""

    def __init__(self, world: "Processes") -> None:
        super().__init__()
        self._world, self._pending, self._since = world, None, 0.0

    def agreed(self) -> bool:
        """What was asked for by the call before this one: the answer travels while a step is computed."""
        before, self._pending = self._pending, self._world.any_of_all(self.requested)
        return before() if before else False

    def check(self) -> None:
        """Needs no other process at the same point, so each may have its own number of evaluation batches."""
        fault = self._world.board.fault()
        if fault is not None:
            raise fault
        if self.requested:
            self._world.board.ask_to_stop()
        self._world.board.look()

    def __exit__(self, *_) -> None:
        """The first to leave makes torchrun send SIGTERM to the others, which are leaving too."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _frame) -> None:
        now = time.monotonic()
        if self.requested and now - self._since > SAME_REQUEST_S:
            os._exit(Preempted.exit_code)
        self._since = self._since if self.requested else now
        self.requested = True
