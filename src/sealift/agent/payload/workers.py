"""Threads for what runs outside the interpreter's lock: SHA-256 and LZMA."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Task:
    """One call on its way through a thread."""

    def __init__(self, call: Callable[[], bytes]) -> None:
        self._call = call
        self._result: SimpleQueue[bytes | Exception] = SimpleQueue()

    def run(self) -> None:
        """Do it, and keep nothing but what comes of it."""
        found: bytes | Exception
        try:
            found = self._call()
        except Exception as error:  # noqa: BLE001  raised again by whoever asks
            found = error
        del self._call
        self._result.put(found)

    @property
    def ready(self) -> bool:
        """Whether :meth:`result` would not wait."""
        return not self._result.empty()

    def result(self) -> bytes:
        """What the call gave, or its error; may be asked for once."""
        found = self._result.get()
        if isinstance(found, Exception):
            raise found
        return found


class Workers:
    """A few threads; they end with the ``with`` block, after what was begun."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def start(self, call: Callable[[], bytes]) -> Task:
        """Have it done by whichever thread is free."""
        task = Task(call)
        self._tasks.put(task)
        return task

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.run()
            task = None  # or its bytes would stay until the next one comes
