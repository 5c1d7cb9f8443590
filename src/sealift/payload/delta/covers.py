"""Covers: which pieces of the new image look like which pieces of the base.

A cover promises nothing. It says where in the base a piece of the new image probably
came from; what the bytes have in common is found when frames are made (``segments``),
so a bad cover costs bytes and never correctness. Only its bounds are checked here,
because an engine is foreign code that reads whatever images a vendor has.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Engine = Callable[[bytes, bytes], Iterable["Cover"]]
    """``engine(base, new)`` finds covers, ascending in ``new`` and disjoint."""


@dataclass(frozen=True, slots=True)
class Cover:
    """``new[new : new + length]`` resembles ``base[base : base + length]``. Bytes."""

    new: int
    base: int
    length: int

    def cut(self, start: int, stop: int) -> Cover:
        """The part within ``[start, stop)`` of the new image, which it must touch."""
        first, last = max(self.new, start), min(self.new + self.length, stop)
        return Cover(first, self.base + first - self.new, last - first)


class Covers:
    """Covers of one new image, ascending and disjoint, in 24 bytes each."""

    def __init__(self) -> None:
        self._new = array("Q")
        self._base = array("Q")
        self._length = array("Q")

    def __len__(self) -> int:
        return len(self._new)

    def __iter__(self) -> Iterator[Cover]:
        for new, base, length in zip(self._new, self._base, self._length, strict=True):
            yield Cover(new, base, length)

    def add(self, new: int, base: int, length: int) -> None:
        """Append a cover behind all others; one that continues the last prolongs it."""
        if self._new:
            last = self._length[-1]
            if self._new[-1] + last == new and self._base[-1] + last == base:
                self._length[-1] = last + length
                return
        self._new.append(new)
        self._base.append(base)
        self._length.append(length)

    def within(self, start: int, stop: int) -> Iterator[Cover]:
        """The parts of covers in ``[start, stop)`` of the new image."""
        index = max(0, bisect_right(self._new, start) - 1)
        while index < len(self._new) and self._new[index] < stop:
            found = Cover(self._new[index], self._base[index], self._length[index])
            if found.new + found.length > start:
                yield found.cut(start, stop)
            index += 1


def checked(found: Iterable[Cover], base_length: int, new_length: int) -> Covers:
    """The covers of an engine, if each lies within both inputs and none overlap.

    Raises:
        EngineError: one does not.
    """
    covers, end = Covers(), 0
    for cover in found:
        inside = (
            cover.length > 0
            and end <= cover.new <= new_length - cover.length
            and 0 <= cover.base <= base_length - cover.length
        )
        if not inside:
            raise EngineError("delta: the match engine left its images")
        covers.add(cover.new, cover.base, cover.length)
        end = cover.new + cover.length
    return covers


def merged(first: Covers, second: Covers) -> Covers:
    """Both as one; the covers of each lie in the gaps of the other."""
    covers = Covers()
    for cover in heapq.merge(first, second, key=lambda cover: cover.new):
        covers.add(cover.new, cover.base, cover.length)
    return covers
