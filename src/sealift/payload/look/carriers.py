"""Who carries the bytes of a delta: files, or regions where there are no files.

The bytes of a frame are shared out among the ops that needed them: literals and
differences by what their streams came to, differences only where they are not zero. It
is an estimate, since a stream is compressed as a whole, and a good one: a file that
changed stands out by orders of magnitude.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sealift.core.container import Op
from sealift.core.delta import Extent, read_control, read_streams
from sealift.core.streams import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.core.container import Segment
    from sealift.payload.look.owners import Owners
    from sealift.payload.rebuild import Source


def carriers(source: Source, owners: Owners) -> tuple[tuple[str, int], ...]:
    """Names and their bytes of the container, those with most first.

    Raises:
        PayloadError, FormatError: the container is not the one of its facts.
    """
    found = Counter[str]()
    for segment in source.segments():
        if not segment.framed:
            continue
        frame = source.frame(segment)
        for offset, length, cost in _costs(segment, frame.raw):
            for place, part in owners.within(offset, length):
                name = place.name if place is not None else _region(segment)
                found[name] += cost * part / length  # type: ignore[assignment]
    return tuple((name, round(cost)) for name, cost in found.most_common())


def _region(segment: Segment) -> str:
    return f"the segment at {segment.offset / (1 << 20):.1f} MiB"


def _costs(segment: Segment, frame: bytes) -> Iterator[tuple[int, int, float]]:
    """Runs of the image, and the bytes of the frame that were spent on each."""
    if segment.op is Op.REPLACE:
        yield segment.offset, segment.length, len(frame)
        return
    control, difference, literal = read_streams(frame, segment.length)
    ops = read_control(unpack(*control), segment.offset, segment.length)
    extents = list(ops)
    weights = list(_weights(extents, unpack(*difference)))
    per_op = len(control.packed) / max(1, len(extents))
    packed = {Op.DELTA: len(difference.packed), Op.REPLACE: len(literal.packed)}
    totals = Counter[Op]()
    for extent, weight in zip(extents, weights, strict=True):
        totals[extent.op] += weight
    offset = segment.offset
    for extent, weight in zip(extents, weights, strict=True):
        share = packed[extent.op] * weight / totals[extent.op] if weight else 0.0
        yield offset, extent.length, per_op + share
        offset += extent.length


def _weights(extents: list[Extent], difference: bytes) -> Iterator[int]:
    """How many bytes each op brought: literals, or differences that are not zero."""
    at = 0
    for extent in extents:
        if extent.op is Op.DELTA:
            stop = at + extent.length
            yield extent.length - difference.count(0, at, stop)
            at = stop
        else:
            yield extent.length if extent.op is Op.REPLACE else 0
