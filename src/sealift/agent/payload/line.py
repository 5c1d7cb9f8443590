"""From the frame to the medium: decode in threads, write in order, flush in groups."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from sealift.core.payload import open_frame

if TYPE_CHECKING:
    from sealift.agent.payload.workers import Task, Workers
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import Segment
    from sealift.core.payload import Frame

_IN_FLIGHT: Final = 4
"""Segments between socket and medium at most, for the sake of memory."""


class Line:
    """Segments between socket and medium: few, and few bytes of network in them."""

    def __init__(self, workers: Workers, into: SlotDevice, most: int) -> None:
        self._workers = workers
        self._into = into
        self._most = most
        self._tasks: deque[tuple[Segment, Task]] = deque()
        self._bytes = 0

    def make_room(self, frame_length: int) -> None:
        """Have so much written and flushed that another frame may be fetched."""
        while self._tasks and (
            self._bytes + frame_length > self._most or len(self._tasks) >= _IN_FLIGHT
        ):
            self._settle()

    def add(self, frame: Frame) -> None:
        """Take in one more."""
        segment, task = frame.segment, self._workers.start(partial(open_frame, frame))
        self._tasks.append((segment, task))
        self._bytes += segment.frame_length

    def drain(self) -> None:
        """Have all of them written and flushed."""
        while self._tasks:
            self._settle()

    def _settle(self) -> None:
        """Write the oldest and those already decoded behind it; one flush for all."""
        while True:
            segment, task = self._tasks.popleft()
            self._into.write(segment.offset, task.result())
            self._bytes -= segment.frame_length
            if not self._tasks or not self._tasks[0][1].ready:
                break
        self._into.flush()
