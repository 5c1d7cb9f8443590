"""What is in the slot already, and what the rest costs. Reads only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.container import Op
from sealift.core.errors import SlotError
from sealift.core.payload import all_zero

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.payload.workers import Task, Workers
    from sealift.agent.ports import Progress, SlotDevice
    from sealift.core.container import Head, Segment

GAP_MAX: Final = 256 * 1024
"""Unwanted bytes between two frames that are received rather than asked around."""

_AHEAD: Final = 2
"""Segments that are hashed while the next is read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which segments are wrong, one bit each, and what they cost on the network."""

    head: Head
    bits: bytes
    length: int
    cost: int

    def wrong(self) -> Iterator[Segment]:
        """The segments to be written, in order."""
        for segment in self.head.segments():
            if self.bits[segment.index >> 3] >> (segment.index & 7) & 1:
                yield segment

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The ranges of the container that hold their frames, small gaps included."""
        return _ranges(self.wrong())


def survey(head: Head, into: SlotDevice, workers: Workers, progress: Progress) -> Plan:
    """Hash what is in the slot and compare; reads only."""
    bits = bytearray(-(-head.header.count // 8))
    length = 0
    for segment, digest in _digests(head, into, workers):
        if digest != segment.sha256:
            bits[segment.index >> 3] |= 1 << (segment.index & 7)
            length += segment.length
        progress.report(
            "check", segment.offset + segment.length, head.header.image_length
        )
    plan = Plan(head, bytes(bits), length, 0)
    cost = sum(stop - start for start, stop in plan.ranges())
    return Plan(head, bytes(bits), length, cost)


def _digests(
    head: Head, into: SlotDevice, workers: Workers
) -> Iterator[tuple[Segment, bytes]]:
    """Every segment, in order, and the digest of what lies in its place."""
    begun: deque[tuple[Segment, Task]] = deque()
    for segment in head.segments():
        if len(begun) == _AHEAD:
            ready, task = begun.popleft()
            yield ready, task.result()
        found = _read(into, segment)
        begun.append((segment, workers.start(partial(_digest, segment, found))))
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
