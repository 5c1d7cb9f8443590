"""Bytes as decisions: what a fuzzer sends steers what is done with a sound input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Takes decisions off the front of ``data``; zeros when there is nothing left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that decide nothing yet."""
        return max(0, len(self._data) - self._at)

    def raw(self, length: int) -> bytes:
        """So many bytes."""
        found = self._data[self._at : self._at + length]
        self._at += length
        return found.ljust(length, b"\0")

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(self.left)

    def below(self, stop: int) -> int:
        """A number from 0 to ``stop - 1``."""
        size = (stop.bit_length() + 7) // 8
        return int.from_bytes(self.raw(size), "little") % stop

    def pick(self, table: Sequence[T]) -> T:
        """One of them."""
        return table[self.below(len(table))]

    def number(self) -> int:
        """Often small, sometimes at a border, seldom anything of 64 bits."""
        kind = self.below(8)
        if kind < 4:
            return self.below(64)
        if kind < 6:
            return self.below(1 << 17)
        if kind == 6:
            return max(0, (1 << self.below(70)) - self.below(3))
        return int.from_bytes(self.raw(8), "little")

    def edited(self, raw: bytes) -> bytes:
        """``raw`` with one change: bytes flipped, set, cut out, put in, moved, cut."""
        at = self.below(len(raw) + 1)
        size = min(1 + self.below(8), len(raw) - at)
        match self.below(7):
            case 0:
                flipped = bytes(byte ^ 1 << self.below(8) for byte in raw[at:][:1])
                return raw[:at] + flipped + raw[at + 1 :]
            case 1:
                return raw[:at] + self.raw(size) + raw[at + size :]
            case 2:
                return raw[:at] + raw[at + size :]
            case 3:
                return raw[:at] + self.raw(1 + self.below(8)) + raw[at:]
            case 4:
                other = self.below(len(raw) + 1)
                return raw[:at] + raw[other : other + size] + raw[at:]
            case 5:
                return raw[:at]
            case _:
                return raw + raw[at : at + size]
