"""The match engine: ``hdiffpatch``, for its matches only (``docs/adr/0010``).

The package finds what two byte strings have in common and writes it down in a format of
its own, HDIFF13. Only the list of covers is read from that, uncompressed, and every
number is bounded; the container that travels is ours. Layout (HDiffPatch 4,
``serialize_compressed_diff``; integers are big-endian groups of seven bits)::

    "HDIFF13&" NUL
    new length, base length, number of covers
    four pairs of plain and packed length: covers, control, code, literal
    covers: base offset from the end of the last (sign bit first), new offset from the
            end of the last, length
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealift.core.errors import EngineError, MissingToolError
from sealift.payload.delta.covers import Cover

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = b"HDIFF13&\0"
_SMALLEST: Final = 3
"""Bytes of the shortest cover."""
_DIGITS: Final = 9
"""Groups of seven bits in the longest number, 63 bits."""


def hdiffpatch_covers(base: bytes, new: bytes) -> Iterator[Cover]:
    """What ``new`` has in common with ``base``: one thread, no limits.

    Raises:
        EngineError: the package failed, or its result is not what it should be.
        MissingToolError: the package is not installed.
    """
    try:
        import hdiffpatch
    except ModuleNotFoundError as error:
        raise MissingToolError(
            "making deltas needs the package hdiffpatch",
            hint="install the extra: sealift[sign]",
        ) from error
    except ImportError as error:
        raise EngineError("delta: the match engine does not load") from error
    try:
        found = hdiffpatch.diff(
            base, new, compression="none", validate=False, big_cache_match=True
        )
    except hdiffpatch.HDiffPatchError as error:
        raise EngineError("delta: the match engine failed") from error
    return read_covers(found, len(base), len(new))


def read_covers(found: bytes, base_length: int, new_length: int) -> Iterator[Cover]:
    """The covers in an uncompressed HDIFF13 file.

    Raises:
        EngineError: not such a file, of other images, or it contradicts itself.
    """
    if not found.startswith(MAGIC):
        raise EngineError("delta: the match engine wrote an unknown format")
    numbers = _Numbers(found, len(MAGIC))
    lengths = numbers.take(), numbers.take()
    count, size, packed = numbers.take(), numbers.take(), numbers.take()
    for _rest in range(6):
        numbers.take()
    if lengths != (new_length, base_length) or packed:
        raise EngineError("delta: the match engine compared other images")
    if size > len(found) - numbers.at or count * _SMALLEST > size:
        raise EngineError("delta: the match engine's result is cut short")
    return _covers(_Numbers(found[numbers.at : numbers.at + size]), count)


def _covers(numbers: _Numbers, count: int) -> Iterator[Cover]:
    new = base = 0
    for _index in range(count):
        base += numbers.take_signed()
        new += numbers.take()
        length = numbers.take()
        yield Cover(new, base, length)
        base += length
        new += length
    if numbers.at != len(numbers.raw):
        raise EngineError("delta: the match engine's result is too long")


class _Numbers:
    """Integers read one after the other."""

    def __init__(self, raw: bytes, at: int = 0) -> None:
        self.raw = raw
        self.at = at

    def take(self) -> int:
        return self._digits(self._byte(), 0x80)

    def take_signed(self) -> int:
        first = self._byte()
        value = self._digits(first & 0x7F, 0x40)
        return -value if first & 0x80 else value

    def _digits(self, byte: int, more: int) -> int:
        value = byte & (more - 1)
        for _digit in range(_DIGITS):
            if not byte & more:
                return value
            byte, more = self._byte(), 0x80
            value = value << 7 | byte & 0x7F
        raise EngineError("delta: the match engine wrote a number too large")

    def _byte(self) -> int:
        if self.at >= len(self.raw):
            raise EngineError("delta: the match engine's result is cut short")
        self.at += 1
        return self.raw[self.at - 1]
