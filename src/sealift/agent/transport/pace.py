"""How fast is fast enough, and how fast is allowed: pure sums.

Only time spent *waiting for the peer* counts against it. A slow flash or a rate limit
of our own must not make an honest server look like a slow one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from sealift.core.errors import SlowTransferError

_STEPS: Final = 60


class Pace:
    """Judges one answer: a lowest rate over any window, and a deadline (E4).

    ``rate`` is in bytes per second, ``window`` in seconds; ``length`` is the most bytes
    that may come. The deadline is ``length / rate + window``.
    """

    def __init__(self, rate: float, window: float, length: int) -> None:
        self._rate = rate
        self._window = window
        self._deadline = length / rate + window
        self._waited = 0.0
        self._count = 0
        self._marks = deque([(0.0, 0)])

    def add(self, waited: float, count: int) -> None:
        """``count`` bytes came after ``waited`` seconds of waiting; 0 for none yet.

        Raises:
            SlowTransferError: too slow over a whole window, or past the deadline.
        """
        self._waited += waited
        self._count += count
        if self._waited > self._deadline:
            raise SlowTransferError(
                "the answer took longer than its size allows",
                seconds=round(self._waited),
            )
        self._judge()

    def _judge(self) -> None:
        """Compare with the oldest mark that lies a whole window back."""
        marks, edge = self._marks, self._waited - self._window
        while len(marks) > 1 and marks[1][0] <= edge:
            marks.popleft()
        since, before = marks[0]
        if since <= edge and self._count - before < self._rate * self._window:
            raise SlowTransferError(
                f"fewer than {self._rate:g} bytes per second came",
                bytes=self._count - before,
                seconds=round(self._waited - since),
            )
        if self._waited - marks[-1][0] >= self._window / _STEPS:
            marks.append((self._waited, self._count))


class Bucket:
    """A token bucket: how long to sleep so that ``rate`` bytes per second hold.

    One second's worth may come at once. Times are seconds of one monotonic clock.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._then = now

    def take(self, count: int, now: float) -> float:
        """Seconds to sleep after ``count`` bytes came at ``now``."""
        self._tokens += (now - self._then) * self._rate
        self._tokens = min(self._tokens, self._rate) - count
        self._then = now
        return max(0.0, -self._tokens / self._rate)
