"""What other threads want of the engine's: calls, made there one after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from lumen.workers.llamacpp.model import LoadError


class Orders:
    """`give`, `ask` and `wake` from any thread, `obey` on the engine's."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def __len__(self) -> int:
        return self._inbox.qsize()

    def give(self, call: Callable[[], None]) -> None:
        self._inbox.put(call)

    def wake(self) -> None:
        """Only have the engine look around."""
        self._inbox.put(_nothing)

    def ask(self, call: Callable[[], bool]) -> Future[bool]:
        """What `call` returns there, or the `LoadError` it raises. Whoever cancels before that has asked nothing."""
        done: Future[bool] = Future()

        def obey() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(call())
            except LoadError as error:
                done.set_exception(error)

        self._inbox.put(obey)
        return done

    def obey(self) -> None:
        """Wait for the next call, and make it."""
        self._inbox.get()()


def _nothing() -> None:
    """A call that only wakes the engine."""
