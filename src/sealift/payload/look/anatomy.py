"""Look into a container: what is in its head, what its frames do, where in the image.

Read are the head and, of DELTA frames, the control stream; every frame is compared with
its digest, nothing else is decoded. A container is untrusted: it is opened like on a
device, against facts (``facts``), and refused where it contradicts them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from sealift.core.container import Op, open_head
from sealift.core.delta import Streams, read_control, read_streams
from sealift.core.payload import check_frame
from sealift.core.streams import unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.core.container import ReadAt, Segment
    from sealift.core.payload import Frame
    from sealift.payload.facts import Facts

    Progress = Callable[[str, int, int], None]

CELLS: Final = 1024
"""Cells of the finest map that is drawn."""
CELL_MIN: Final = 512
"""Bytes of the smallest cell."""
SHOWN: Final = 8
"""One byte in so many that is new, or changed, decides how a cell is drawn."""
BIGGEST: Final = 10
"""Segments that are named because of their size."""


class Tone(StrEnum):
    """What became of a part of the image, seen from the base."""

    COPIED = "copied"
    CHANGED = "changed"
    NEW = "new"
    ZERO = "zero"


_TONES: Final = {
    Op.COPY: Tone.COPIED,
    Op.DELTA: Tone.CHANGED,
    Op.REPLACE: Tone.NEW,
    Op.ZERO: Tone.ZERO,
}


class Map:
    """The image as cells of equal size, and how many bytes of each tone are in each."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.cell = CELL_MIN
        while -(-length // self.cell) > CELLS:
            self.cell *= 2
        self.cells = [dict.fromkeys(Tone, 0) for _ in range(-(-length // self.cell))]

    def paint(self, offset: int, length: int, tone: Tone) -> None:
        """Give ``length`` bytes at ``offset`` a tone."""
        while length > 0:
            index, inside = divmod(offset, self.cell)
            part = min(length, self.cell - inside)
            self.cells[index][tone] += part
            offset, length = offset + part, length - part

    def total(self, tone: Tone) -> int:
        """Bytes of one tone in all."""
        return sum(cell[tone] for cell in self.cells)

    def tones(self, group: int = 1) -> list[Tone]:
        """The tone of every ``group`` cells, as :func:`_tone` sees it."""
        found = []
        for at in range(0, len(self.cells), group):
            cells = self.cells[at : at + group]
            found.append(_tone({tone: sum(c[tone] for c in cells) for tone in Tone}))
        return found


def _tone(totals: dict[Tone, int]) -> Tone:
    """What a part is drawn as: what costs bytes shows before it is the most of it.

    Zero only where nothing else is.
    """
    new, changed, copied = totals[Tone.NEW], totals[Tone.CHANGED], totals[Tone.COPIED]
    plain = new + changed + copied
    if not plain:
        return Tone.ZERO
    if new * SHOWN >= plain:
        return Tone.NEW
    return Tone.CHANGED if (new + changed) * SHOWN >= plain else Tone.COPIED


@dataclass(slots=True)
class Share:
    """What one kind of segment, or of op, comes to."""

    count: int = 0
    plain: int = 0
    frames: int = 0


@dataclass(slots=True)
class StreamSizes:
    """Bytes of the three streams of all DELTA frames, plain and packed."""

    control: tuple[int, int] = (0, 0)
    difference: tuple[int, int] = (0, 0)
    literal: tuple[int, int] = (0, 0)

    def by_name(self) -> dict[str, tuple[int, int]]:
        """All three."""
        return {name: getattr(self, name) for name in Streams._fields}

    def add(self, streams: Streams) -> None:
        """Add those of one frame."""
        for name, stream in streams._asdict().items():
            plain, packed = getattr(self, name)
            setattr(self, name, (plain + stream.length, packed + len(stream.packed)))


def _shares() -> dict[Op, Share]:
    return {op: Share() for op in Op}


@dataclass(slots=True)
class Anatomy:
    """What is in a container. ``segments`` and ``ops`` are by :class:`Op`."""

    facts: Facts
    map: Map
    segments: dict[Op, Share] = field(default_factory=_shares)
    ops: dict[Op, Share] = field(default_factory=_shares)
    streams: StreamSizes = field(default_factory=StreamSizes)
    biggest: list[Segment] = field(default_factory=list)


def dissect(
    read_at: ReadAt, facts: Facts, progress: Progress = lambda *_: None
) -> Anatomy:
    """Open a container against facts and look at all its segments.

    ``progress(step, done, total)`` counts bytes of the image.

    Raises:
        PayloadError, FormatError: the head is not the one of these facts, a frame is
            not the one of the head, or an op does not fit.
    """
    length = facts.artifact.length
    found = Anatomy(facts, Map(length))
    framed: list[Segment] = []
    for segment in open_head(read_at, facts.artifact, facts.container).segments():
        raw = b""
        if segment.framed:
            framed.append(segment)
            raw = read_at(segment.frame_offset, segment.frame_length)
        _look(found, check_frame(segment, raw))
        progress("looking", segment.offset + segment.length, length)
    found.biggest = nlargest(BIGGEST, framed, key=lambda one: one.frame_length)
    return found


def _look(found: Anatomy, frame: Frame) -> None:
    segment = frame.segment
    share = found.segments[segment.op]
    share.count += 1
    share.plain += segment.length
    share.frames += segment.frame_length
    if segment.op is Op.DELTA:
        _look_closer(found, frame)
    else:
        found.map.paint(segment.offset, segment.length, _TONES[segment.op])


def _look_closer(found: Anatomy, frame: Frame) -> None:
    segment = frame.segment
    streams = read_streams(frame.raw, segment.length)
    found.streams.add(streams)
    offset = segment.offset
    control = unpack(*streams.control)
    for extent in read_control(control, segment.offset, segment.length):
        share = found.ops[extent.op]
        share.count += 1
        share.plain += extent.length
        found.map.paint(offset, extent.length, _TONES[extent.op])
        offset += extent.length
