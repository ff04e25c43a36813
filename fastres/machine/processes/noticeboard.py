"""How the processes of a run talk without a time limit: notes pinned to torchrun's key-value store.

Collectives between processes time out within seconds, because a peer that does not answer is lost. Waiting for a slow
evaluation or for the first process's disk is not that, so it goes this way: whoever waits looks at the board again and
again, and on it also sees that another process failed, was asked to stop, or gives no sign of life any more.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fastres.machine.errors import FastresError, MachineError, Preempted, first_line, kind_of

Value = TypeVar("Value")
LOOK_EVERY = 0.01  # seconds; a look costs some 100 us
SIGN_EVERY = 3.0  # seconds between two signs of life of a process
FAULT, STOP = "fault", "stop"


class Noticeboard:
    """One process's access to the notes; all call `meet`, `from_first` and `of_all` equally often, in order."""

    def __init__(self, store, rank: int, size: int, patience: float) -> None:
        """`store`: a torch.distributed.Store that all see. `patience`: seconds without a sign of life."""
        self._store, self.rank, self.size, self.patience = store, rank, size, patience
        self._meetings = 0
        self._left = threading.Event()
        threading.Thread(target=self._live, name="signs-of-life", daemon=True).start()

    def _live(self) -> None:
        """Sign every few seconds, whatever the main thread does. A stopped process or machine signs no more."""
        while not self._left.is_set():
            try:
                self._store.add(f"signs of {self.rank}", 1)
            except RuntimeError:  # torchrun is gone; whoever waits says so
                return
            self._left.wait(SIGN_EVERY)

    def leave(self) -> None:
        """Sign no more."""
        self._left.set()

    def meet(self) -> None:
        """Wait until all are here, however long that takes.

        Preempted where another process was asked to stop on its way here, its fault where it failed.
        """
        self._meetings += 1
        key = f"meeting {self._meetings}"
        self._store.add(key, 1)
        self._wait(lambda: self._store.add(key, 0) == self.size)

    def part(self, patience: float) -> bool:
        """Wait until all are about to leave, whatever is pinned up; False if that took more than `patience` seconds."""
        self._store.add("leaving", 1)
        deadline = time.monotonic() + patience
        while self._store.add("leaving", 0) < self.size:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_EVERY)
        return True

    def from_first(self, work: Callable[[], Value]) -> Value:
        """`work` done by the first process alone; all get its result (plain JSON values), or raise its FastresError."""
        self._meetings += 1
        key = f"meeting {self._meetings}"
        if self.rank == 0:
            try:
                result = work()
            except FastresError as error:
                self.announce(error)
                raise
            self._store.set(key, json.dumps(result))
            return result
        self._wait(lambda: self._store.check([key]))
        return json.loads(self._store.get(key))

    def of_all(self, value: Value) -> list[Value]:
        """Every process's `value` (plain JSON values) by rank; waits for the slowest."""
        self._meetings += 1
        keys = [f"meeting {self._meetings} {rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(value))
        self._wait(lambda: self._store.check(keys))
        return [json.loads(self._store.get(key)) for key in keys]

    def announce(self, error: BaseException) -> None:
        """Tell all why this process gives up. Whoever was second to say it need not print it again."""
        code = error.exit_code if isinstance(error, FastresError) else 1
        text = str(error) if isinstance(error, FastresError) else f"process {self.rank} ended with {error!r}"
        mine = json.dumps({"rank": self.rank, "exit_code": code, "error": text})
        if self._store.compare_set(FAULT, "", mine).decode() != mine and isinstance(error, FastresError):
            error.said = True

    def fault(self) -> FastresError | None:
        """What another process gave up with, if one did; said there already."""
        if not self._store.check([FAULT]):
            return None
        note = json.loads(self._store.get(FAULT))
        fault = kind_of(note["exit_code"])(note["error"])
        fault.said = True
        return fault

    def ask_to_stop(self) -> None:
        """Tell the others that they will wait in vain: this process stops where everything is saved."""
        self._store.set(STOP, "1")

    def look(self) -> None:
        """Raise what another process has pinned up: its fault, or Preempted."""
        fault = self.fault()
        if fault is not None:
            raise fault
        if self._store.check([STOP]):
            raise Preempted("stopped by a signal; the same command goes on from the last checkpoint")

    def _wait(self, over: Callable[[], bool]) -> None:
        signs, looked = {}, 0.0
        try:
            while not over():
                now = time.monotonic()
                self.look()
                if now > looked + SIGN_EVERY:
                    self._check_signs(signs, now)
                    looked = now
                time.sleep(LOOK_EVERY)
        except RuntimeError as error:
            raise MachineError(
                f"process {self.rank} lost torchrun's store ({first_line(error)}); start the command again"
            ) from error

    def _check_signs(self, seen: dict[int, tuple[int, float]], now: float) -> None:
        """MachineError where a process has signed nothing new for too long. `seen`: rank -> signs, since when."""
        for rank in range(self.size):
            signs = self._store.add(f"signs of {rank}", 0)
            if rank not in seen or seen[rank][0] != signs:
                seen[rank] = signs, now
            elif now > seen[rank][1] + self.patience:
                raise MachineError(
                    f"process {rank} of {self.size} hangs: no sign of life for {self.patience:.0f} s; look at its "
                    "machine, and the same command resumes from the last checkpoint"
                )
