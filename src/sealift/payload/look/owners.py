"""Whose bytes are these: places of an image and the names of what lies there."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Place:
    """A run of bytes with one owner. ``first`` marks the first run of a file."""

    offset: int
    length: int
    name: str
    first: bool = False
    file: bool = True


class Owners:
    """A map from offsets to owners; what nobody claimed has none."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = sorted(places, key=attrgetter("offset"))
        self._starts = [place.offset for place in self._places]

    def at(self, offset: int) -> Place | None:
        """The place that holds the byte at ``offset``."""
        index = bisect_right(self._starts, offset) - 1
        if index < 0:
            return None
        found = self._places[index]
        return found if offset < found.offset + found.length else None

    def within(self, offset: int, length: int) -> Iterator[tuple[Place | None, int]]:
        """The owners of a run of bytes, in order, and how much of it is whose."""
        stop = offset + length
        while offset < stop:
            found = self.at(offset)
            end = self._next(offset) if found is None else found.offset + found.length
            end = min(end, stop)
            yield found, end - offset
            offset = end

    def _next(self, offset: int) -> int:
        index = bisect_right(self._starts, offset)
        return self._starts[index] if index < len(self._starts) else 1 << 63
