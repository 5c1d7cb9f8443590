"""Signs of life: whoever works says that it gets on; who hangs cannot say it.

:func:`beat` stands where a piece of work was done: bytes read or written, a wait that
is bounded by itself. :func:`within` encloses one step that says nothing for so long:
flushing a slot, a health check within its deadline. Nobody has to listen. In the parent
of ``run`` the watchdogs do (``agent.watchdog``), in a child the parent does.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE_SECONDS = 120.0
"""How long nobody needs to say anything; longer steps stand in :func:`within`."""


class Listener(Protocol):
    """Who is told."""

    def lives(self, seconds: float) -> float | None:
        """It gets on, and may be silent for ``seconds``; tell again in this many."""
        ...

    def trial(self, seconds: float) -> None:
        """This start is a trial that has ``seconds`` left."""
        ...

    def settled(self) -> None:
        """This start is no trial, or no longer one."""
        ...

    def restarts(self) -> None:
        """The machine is about to be restarted."""
        ...


_listener: Listener | None = None
_within = 0


def listen(listener: Listener | None) -> None:
    """Have ``listener`` told from now on, in place of whoever was."""
    global _listener, _within
    _listener, _within = listener, 0


def beat() -> float | None:
    """A piece of work is done; when the next sign is wanted, if anybody listens."""
    if _listener is None or _within:
        return None
    return _listener.lives(SILENCE_SECONDS)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """One step that may be silent for so long; signs from other threads do not count.

    The listener gets ``seconds`` on top of what everybody has.
    """
    global _within  # noqa: PLW0603 -- see above
    if _listener is not None and not _within:
        _listener.lives(SILENCE_SECONDS + seconds)
    _within += 1
    try:
        yield
    finally:
        _within = max(0, _within - 1)
        if not _within:
            beat()


def trial(seconds: float) -> None:
    """This start is a trial with so many seconds left."""
    if _listener is not None:
        _listener.trial(seconds)


def settled() -> None:
    """This start is no trial any more, or never was one."""
    if _listener is not None:
        _listener.settled()


def restarts() -> None:
    """The machine is about to be restarted: nobody may call the watchdog off."""
    if _listener is not None:
        _listener.restarts()
