"""From the frame to the medium: decode in threads, write in order, flush in groups."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from sealift.core.errors import SealiftError
from sealift.core.payload import open_frame

if TYPE_CHECKING:
    from typing import Protocol

    from sealift.agent.payload.workers import Task, Workers
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import Segment
    from sealift.core.delta import Base
    from sealift.core.payload import Frame

    class Judge(Protocol):
        """Who hears what became of each segment, in order."""

        def good(self, segment: Segment) -> None:
            """It is right, and written."""
            ...

        def bad(self, segment: Segment, error: SealiftError) -> None:
            """It is not what is signed, and was not written; may raise ``error``."""
            ...


class Line:
    """Segments between socket and medium: few, and few bytes of network in them.

    ``most`` is how many bytes of frames there are at a time.
    """

    def __init__(
        self,
        workers: Workers,
        into: SlotDevice,
        base: Base | None,
        judge: Judge,
        most: int,
    ) -> None:
        self._workers = workers
        self._into = into
        self._base = base
        self._judge = judge
        self._most = most
        self._tasks: deque[tuple[Segment, Task]] = deque()
        self._bytes = 0

    def make_room(self, frame_length: int) -> None:
        """Have so much written and flushed that another frame may be fetched."""
        while self._tasks and self._bytes + frame_length > self._most:
            self._settle()

    def add(self, frame: Frame) -> None:
        """Take in one more, when there is a thread for it."""
        while len(self._tasks) >= self._workers.count:
            self._settle()
        segment = frame.segment
        task = self._workers.start(partial(open_frame, frame, self._base))
        self._tasks.append((segment, task))
        self._bytes += segment.frame_length

    def drain(self) -> None:
        """Have all of them written and flushed."""
        while self._tasks:
            self._settle()

    def _settle(self) -> None:
        """Write the oldest and those already decoded behind it; one flush for all.

        What cost no network may be flushed later.
        """
        paid = 0
        while True:
            segment, task = self._tasks.popleft()
            self._bytes -= segment.frame_length
            paid += self._write(segment, task)
            if not self._tasks or not self._tasks[0][1].ready:
                break
        if paid:
            self._into.flush()

    def _write(self, segment: Segment, task: Task) -> int:
        """Bytes of network that this segment was worth: 0 if it came out wrong."""
        try:
            plain = task.result()
        except SealiftError as error:
            self._judge.bad(segment, error)
            return 0
        self._into.write(segment.offset, plain)
        self._judge.good(segment)
        return segment.frame_length
