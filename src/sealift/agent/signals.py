"""Signals as facts that are asked for: stop, and poll now.

``SIGTERM`` and ``SIGINT`` ask the agent to stop between two durable steps, ``SIGUSR1``
to poll at once. Handlers only note; a descriptor becomes readable, so a wait ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from sealift.agent import life

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_STOP = (signal.SIGTERM, signal.SIGINT)
_ALL = (*_STOP, signal.SIGUSR1)


class Signals:
    """Installs the handlers when made; one per process."""

    def __init__(self) -> None:
        self.stopping = False
        self.hinted = False
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _ALL:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal comes; a process that waits lives."""
        until = time.monotonic() + seconds
        while not self.stopping and not self.hinted:
            again = life.beat()
            left = until - time.monotonic()
            if left <= 0:
                break
            wait = left if again is None else min(left, again)
            select.select([self.descriptor], [], [], max(0.0, wait))
            self.drain()
        self.drain()

    def drain(self) -> None:
        """Empty the descriptor; what the signals said stays noted."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 64):
                pass

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have signals wait; a process forked meanwhile makes its own ``Signals``."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)

    def take_hint(self) -> bool:
        """Whether somebody asked to poll at once; asked only once."""
        hinted, self.hinted = self.hinted, False
        return hinted

    def end_if_stopping(self) -> None:
        """Called between two durable steps of a child.

        Raises:
            SystemExit: the agent is to stop; the next start resumes what was begun.
        """
        if self.stopping:
            raise SystemExit(0)

    def ignore_hints(self) -> None:
        """For the way out: an interpreter that ends would die of a late hint."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def close(self) -> None:
        """Release the descriptors; the handlers stay."""
        os.close(self.descriptor)
        os.close(self._writer)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP:
            self.stopping = True
        else:
            self.hinted = True
