"""The clock of the machine. Nobody below the composition root asks another."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class SystemClock:
    """The port ``Clock`` over the kernel's clocks."""

    def now(self) -> datetime:
        """The system clock, UTC; it may be wrong by decades (see ``agent.trust``)."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since the machine started; the same clock for every process."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def boot_id(self) -> str:
        """The kernel's own name for this start."""
        try:
            with open(_BOOT_ID) as file:
                return file.read(64).strip()
        except OSError:
            return "unknown"
