"""From the frame to the medium: decode in threads, write in order, flush in groups."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Self

from sealift.core.payload import open_frame

if TYPE_CHECKING:
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import Segment

_IN_FLIGHT: Final = 4
"""Segments between socket and medium at most, for the sake of memory."""


class _Job:
    """One frame on its way to becoming a segment."""

    def __init__(self, segment: Segment, frame: bytes) -> None:
        self.segment = segment
        self.frame = frame
        self._result: SimpleQueue[bytes | Exception] = SimpleQueue()

    def run(self) -> None:
        """Verify, decode, verify."""
        try:
            self._result.put(open_frame(self.segment, self.frame))
        except Exception as error:  # noqa: BLE001  raised again by whoever asks
            self._result.put(error)

    @property
    def ready(self) -> bool:
        """Whether :meth:`plain` would not wait."""
        return not self._result.empty()

    def plain(self) -> bytes:
        """The verified bytes of the segment; may be asked for once."""
        found = self._result.get()
        if isinstance(found, Exception):
            raise found
        return found


class Decoders:
    """Threads that decode; LZMA and SHA-256 run outside the interpreter's lock."""

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def start(self, job: _Job) -> None:
        """Have it done by whichever thread is free."""
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()


class Line:
    """Segments between socket and medium: few, and few bytes of network in them."""

    def __init__(self, decoders: Decoders, into: SlotDevice, most: int) -> None:
        self._decoders = decoders
        self._into = into
        self._most = most
        self._jobs: deque[_Job] = deque()
        self._bytes = 0

    def make_room(self, frame_length: int) -> None:
        """Have so much written and flushed that another frame may be fetched."""
        while self._jobs and (
            self._bytes + frame_length > self._most or len(self._jobs) >= _IN_FLIGHT
        ):
            self._settle()

    def add(self, segment: Segment, frame: bytes) -> None:
        """Take in one more."""
        job = _Job(segment, frame)
        self._jobs.append(job)
        self._bytes += segment.frame_length
        self._decoders.start(job)

    def drain(self) -> None:
        """Have all of them written and flushed."""
        while self._jobs:
            self._settle()

    def _settle(self) -> None:
        """Write the oldest and those already decoded behind it; one flush for all."""
        while True:
            job = self._jobs.popleft()
            self._into.write(job.segment.offset, job.plain())
            self._bytes -= job.segment.frame_length
            if not self._jobs or not self._jobs[0].ready:
                break
        self._into.flush()
