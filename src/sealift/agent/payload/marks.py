"""One bit for each segment of an image."""

from __future__ import annotations


class Marks:
    """A set of segment numbers below ``count``, in an eighth of as many bytes."""

    def __init__(self, count: int, raw: bytes = b"") -> None:
        self._bits = bytearray(raw.ljust(marks_length(count), b"\0"))

    def __contains__(self, index: int) -> bool:
        return bool(self._bits[index >> 3] >> (index & 7) & 1)

    def __len__(self) -> int:
        return int.from_bytes(self._bits, "little").bit_count()

    def __bool__(self) -> bool:
        return any(self._bits)

    def __bytes__(self) -> bytes:
        return bytes(self._bits)

    def add(self, index: int) -> None:
        """Mark a segment."""
        self._bits[index >> 3] |= 1 << (index & 7)

    def discard(self, index: int) -> None:
        """Unmark a segment."""
        self._bits[index >> 3] &= ~(1 << (index & 7))

    def copy(self) -> Marks:
        """The same marks; changing one set does not change the other."""
        return Marks(0, bytes(self._bits))

    def without(self, others: Marks) -> Marks:
        """Those of these that are not among the others; a new set."""
        both = zip(self._bits, bytes(others), strict=True)
        return Marks(0, bytes(mine & ~theirs for mine, theirs in both))


def marks_length(count: int) -> int:
    """Bytes that as many marks take."""
    return -(-count // 8)
