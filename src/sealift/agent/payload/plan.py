"""What is in the slot already, and what the rest takes. Reads only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.agent.payload.marks import Marks
from sealift.core.container import Op
from sealift.core.errors import SlotError
from sealift.core.payload import all_zero

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.payload.workers import Task, Workers
    from sealift.agent.ports import Progress, SlotDevice
    from sealift.core.container import Head, Segment

GAP_MAX: Final = 256 * 1024
"""Unwanted bytes between two frames that are received rather than asked around."""

_AHEAD: Final = 1
"""Segments that are hashed while the next is read, for the sake of memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The segments to be made by one container. ``marks`` must not change meanwhile."""

    head: Head
    marks: Marks

    def segments(self) -> Iterator[Segment]:
        """In order."""
        return (it for it in self.head.segments() if it.index in self.marks)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The ranges of the plain container that hold their frames; neighbours, and
        what has only a small gap between, are one.
        """
        return _ranges(self.segments())

    def length(self) -> int:
        """Bytes of the image in them."""
        return sum(it.length for it in self.segments())


def survey(head: Head, into: SlotDevice, workers: Workers, progress: Progress) -> Marks:
    """Which segments in the slot are wrong: hashed and compared; reads only."""
    wrong = Marks(head.header.count)
    for segment, digest in _digests(head, into, workers):
        if digest != segment.sha256:
            wrong.add(segment.index)
        progress.report(
            "check", segment.offset + segment.length, head.header.image_length
        )
    return wrong


def wire_bytes(
    plan: Plan, wire: Callable[[int, int], tuple[int, int]], have: int
) -> int:
    """Body bytes that the frames take, if the first ``have`` of the file are there."""
    found = (wire(start, stop) for start, stop in plan.ranges())
    return sum(stop - min(max(start, have), stop) for start, stop in found)


def _digests(
    head: Head, into: SlotDevice, workers: Workers
) -> Iterator[tuple[Segment, bytes]]:
    """Every segment, in order, and the digest of what lies in its place."""
    begun: deque[tuple[Segment, Task]] = deque()
    for segment in head.segments():
        if len(begun) > _AHEAD:
            ready, task = begun.popleft()
            yield ready, task.result()
        found = _read(into, segment)
        begun.append((segment, workers.start(partial(_digest, segment, found))))
        del found
    for ready, task in begun:
        yield ready, task.result()


def _read(into: SlotDevice, segment: Segment) -> bytes:
    """What lies there; nothing if it cannot be read, as writing may help."""
    try:
        return into.read(segment.offset, segment.length)
    except SlotError:
        return b""


def _digest(segment: Segment, found: bytes) -> bytes:
    """The digest, or nothing where a look is enough: a segment of zeros holds more."""
    if segment.op is Op.ZERO and not all_zero(found):
        return b""
    return sha256(found).digest()


def _ranges(segments: Iterator[Segment]) -> Iterator[tuple[int, int]]:
    start = stop = 0
    for segment in segments:
        if not segment.framed:
            continue
        if stop and segment.frame_offset - stop > GAP_MAX:
            yield start, stop
            stop = 0
        if not stop:
            start = segment.frame_offset
        stop = segment.frame_offset + segment.frame_length
    if stop:
        yield start, stop
