"""Pieces of an image as one stream of bytes, and places in it back in the image."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from io import BytesIO
from typing import TYPE_CHECKING

from sealift.payload.delta.covers import Cover
from sealift.payload.images import PIECE, exactly

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sealift.payload.images import Image


class Extents:
    """Pieces of one image, ascending, joined to a stream: 24 bytes each."""

    def __init__(self, extents: Iterable[tuple[int, int]] = ()) -> None:
        """Take pieces as ``(start, stop)`` in the image."""
        self._start = array("Q")
        self._stop = array("Q")
        self._at = array("Q")
        self.total = 0
        for start, stop in extents:
            self.add(start, stop)

    def __len__(self) -> int:
        return len(self._start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._start, self._stop, strict=True)

    def add(self, start: int, stop: int) -> None:
        """Append a piece behind all others; one that continues the last prolongs it."""
        if self._stop and self._stop[-1] == start:
            self._stop[-1] = stop
        else:
            self._start.append(start)
            self._stop.append(stop)
            self._at.append(self.total)
        self.total += stop - start

    def places(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Where ``[start, stop)`` of the stream lies in the image, piece by piece."""
        index = bisect_right(self._at, start) - 1
        while start < stop:
            first = self._start[index] + start - self._at[index]
            last = min(first + stop - start, self._stop[index])
            yield first, last
            start += last - first
            index += 1

    def part(self, start: int, stop: int) -> Extents:
        """``[start, stop)`` of the stream as a stream of its own."""
        return Extents(self.places(start, stop))

    def read(self, image: Image) -> bytes:
        """The stream, held once in memory.

        Raises:
            LengthError: the image holds fewer bytes than it said.
        """
        room = BytesIO()
        for start, stop in self:
            for at in range(start, stop, PIECE):
                room.write(exactly(image, at, min(PIECE, stop - at)))
        return room.getvalue()


def placed(found: Iterable[Cover], new: Extents, base: Extents) -> Iterator[Cover]:
    """Covers between two streams as covers between their images.

    One that spans a joint of either stream comes apart there.
    """
    for cover in found:
        at = cover.base
        for start, stop in new.places(cover.new, cover.new + cover.length):
            for first, last in base.places(at, at + stop - start):
                yield Cover(start, first, last - first)
                start += last - first
                at += last - first
