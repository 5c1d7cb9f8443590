"""The clock of this machine for tests; sleeping is written down instead of done."""

from __future__ import annotations

import datetime as dt
import time


class SystemClock:
    """:class:`~sealift.agent.ports.Clock` whose waits take no time."""

    def __init__(self) -> None:
        self.slept = 0.0

    def now(self) -> dt.datetime:
        raise AssertionError("nobody asks for the system time")

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def boot_id(self) -> str:
        return "one"
