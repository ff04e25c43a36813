"""A thread that works ahead of its reader, and never leaves it waiting for a thread that is dead or stuck."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fastres.machine.errors import MachineError

Item = TypeVar("Item")
_END = object()
LOOK_EVERY = 0.5  # seconds between looks at whether the other side lives


class Ahead(Generic[Item]):
    """Iterates over what `produce()` yields, made by a thread up to `depth` items ahead. A context manager.

    What the thread raises is raised here. A thread that ends without a word, or delivers nothing for `patience`
    seconds, is a MachineError. Leaving the context stops the thread, waits for it, and closes the producer in it.
    """

    def __init__(self, produce: Callable[[], Iterator[Item]], *, name: str, depth: int = 3, patience: float = 25.0):
        self.name, self.patience = name, patience
        self._items: queue.Queue = queue.Queue(depth)
        self._stop, self._stuck = threading.Event(), False
        self._thread = threading.Thread(target=self._work, args=(produce,), name=f"ahead-{name}", daemon=True)

    def __enter__(self) -> "Ahead[Item]":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(0 if self._stuck else self.patience)  # a stuck one is a daemon and has been reported

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._next()
            if item is _END:
                return
            if isinstance(item, _Failure) and not isinstance(item.error, Exception):
                # a library's sys.exit() must not end the whole process, least of all with its code 0
                raise MachineError(
                    f"{self.name} stopped: its thread ended with {type(item.error).__name__}, expected "
                    "the next piece of work; start the same command again"
                ) from item.error
            if isinstance(item, _Failure):
                raise item.error
            yield item

    def _next(self) -> object:
        deadline = time.monotonic() + self.patience
        while True:
            alive = self._thread.is_alive()  # before the look: what it left when it died is then seen
            try:
                return self._items.get(timeout=LOOK_EVERY)
            except queue.Empty:
                if not alive:
                    what = "its thread died without a word"
                elif time.monotonic() > deadline:
                    self._stuck, what = True, f"nothing came for {self.patience:.0f} s"
                else:
                    continue
                raise MachineError(
                    f"{self.name} stopped: {what}, expected the next piece of work; start the same command again"
                ) from None

    def _work(self, produce: Callable[[], Iterator[Item]]) -> None:
        try:
            items = produce()
            try:
                for item in items:
                    if not self._put(item):
                        break
            finally:
                if hasattr(items, "close"):
                    items.close()  # here, where a generator's last words belong
            self._put(_END)
        except BaseException as error:  # whatever it is, the reader must hear of it
            self._put(_Failure(error))

    def _put(self, item: object) -> bool:
        """Whether the item found its place; False once nobody wants more."""
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=LOOK_EVERY / 5)
                return True
            except queue.Full:
                continue
        return False


class _Failure:
    """What the thread raised, on its way to the reader."""

    def __init__(self, error: BaseException):
        self.error = error
