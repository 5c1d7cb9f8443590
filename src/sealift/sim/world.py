"""Time and chance of a simulated world: seeded, repeatable, and under our thumb."""

from __future__ import annotations

import heapq
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


class SimClock:
    """:class:`~sealift.agent.ports.Clock` that moves only when somebody sleeps.

    ``system`` may be set anywhere, as a device's battery-less clock may be; the
    monotonic clock and what is scheduled do not follow it.
    """

    def __init__(self, system: datetime = START) -> None:
        self._system = system
        self._monotonic = 0.0
        self._boots = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0

    def now(self) -> datetime:
        """The system clock, UTC."""
        return self._system

    def monotonic(self) -> float:
        """Seconds since this world began."""
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Let time pass; what is scheduled meanwhile happens at its time, in order."""
        until = self._monotonic + max(0.0, seconds)
        while self._events and self._events[0][0] <= until:
            at, _, act = heapq.heappop(self._events)
            self._pass(at)
            act()
        self._pass(until)

    def boot_id(self) -> str:
        """Another text after every :meth:`reboot`."""
        return f"boot-{self._boots}"

    def reboot(self) -> None:
        """Begin a new boot."""
        self._boots += 1

    def set_system(self, system: datetime) -> None:
        """Set the system clock, e.g. to 1970."""
        self._system = system

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Have ``act`` called in ``seconds`` from now, while somebody sleeps."""
        self._scheduled += 1
        due = self._monotonic + seconds
        heapq.heappush(self._events, (due, self._scheduled, act))

    def _pass(self, until: float) -> None:
        moved = max(0.0, until - self._monotonic)
        self._monotonic += moved
        self._system += timedelta(seconds=moved)


class World:
    """One seed, one clock: all chance and time of a simulation hang on these."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.clock = SimClock()
        self.chance = random.Random(seed)
