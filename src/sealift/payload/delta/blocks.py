"""Blocks that both images hold: found by digest, in tables of fixed width.

Most of a new root file system lies in the old one, block for block, at other places.
Finding that costs one reading of each image and about 24 bytes per block of the base,
so it works for images of any size; what is left is small enough to be compared byte by
byte. A block that continues the run before it is preferred to any other copy, for a
run costs nothing to say. Blocks of zeros take no part: they are cheaper than a copy.

Digests are cut to 64 bits. Two blocks that agree in them and in nothing else would make
a bad cover, which costs bytes and no more (``covers``).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat
from typing import TYPE_CHECKING, Final

from sealift.payload.delta.covers import Covers
from sealift.payload.delta.extents import Extents
from sealift.payload.images import PIECE, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.payload.images import Image

    Watch = Callable[[bytes], object]

BLOCK: Final = 4096
"""Bytes of the smallest block: what file systems align by."""
BLOCK_MAX: Final = 1 << 18
_NONE: Final = 0xFFFFFFFF
_ZERO: Final = 0
_LEADS, _WANTED = 1, 2
_BYTES_PER_BLOCK: Final = 48
"""Base: digest 8, slots up to 12, state 1, extents 16. New: covers 24, extents 16; and
what growing arrays hold in reserve."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What both images hold, and what only one of them does."""

    covers: Covers
    changed: Extents
    """Pieces of the new image that are neither zero nor anywhere in the base."""
    vanished: Extents
    """Pieces of the base that are neither zero nor anywhere in the new image."""

    @property
    def memory(self) -> int:
        """About as many bytes as it holds, twice: what is found next is as much."""
        return 48 * (len(self.covers) + len(self.changed) + len(self.vanished))


def block_size(base_length: int, new_length: int, memory: int) -> int:
    """The smallest block whose tables fit into ``memory`` bytes, at most 256 KiB."""
    size, both = BLOCK, base_length + new_length
    while size < BLOCK_MAX and both // size * _BYTES_PER_BLOCK > memory:
        size *= 2
    return size


def find_shared(
    base: Image, new: Image, size: int, see_base: Watch, see_new: Watch
) -> Shared:
    """Compare two images by blocks of ``size`` bytes; each is read once, in order.

    ``see_base`` and ``see_new`` get every byte that is read.

    Raises:
        LengthError: an image holds fewer bytes than it said.
    """
    table = _Table(-(-base.length // size))
    for index, digest in enumerate(_digests(base, size, see_base)):
        table.put(index, digest)
    covers, changed, shift = Covers(), Extents(), 0
    for index, digest in enumerate(_digests(new, size, see_new)):
        if digest == _ZERO:
            continue
        start = index * size
        length = min(size, new.length - start)
        found = table.find(digest, index + shift)
        if found < 0:
            changed.add(start, start + length)
            continue
        shift = found - index
        covers.add(start, found * size, length)
    return Shared(covers, changed, _vanished(table, size, base.length))


def _digests(image: Image, size: int, see: Watch) -> Iterator[int]:
    """One number per block, in order: zero for zeros, else its digest."""
    zeros = bytes(PIECE)
    for piece in pieces(image):
        see(piece)
        if piece == zeros:
            yield from repeat(_ZERO, PIECE // size)
            continue
        view = memoryview(piece)
        for at in range(0, len(piece), size):
            yield _digest(view[at : at + size], zeros)


def _digest(block: memoryview, zeros: bytes) -> int:
    if block == zeros[: len(block)]:
        return _ZERO
    return int.from_bytes(sha256(block).digest()[:8], "little")


def _vanished(table: _Table, size: int, length: int) -> Extents:
    found = Extents()
    for index in table.unwanted():
        found.add(index * size, min((index + 1) * size, length))
    return found


class _Table:
    """The blocks of the base by digest: open addressing, first come first found."""

    def __init__(self, count: int) -> None:
        slots = 1 << (count * 3 // 2).bit_length()
        self._mask = slots - 1
        self._slots = array("I", [_NONE]) * slots
        self._digests = array("Q", bytes(8)) * count
        self._state = bytearray(count)

    def put(self, index: int, digest: int) -> None:
        """Enter a block; of those that are equal the first stands for all."""
        self._digests[index] = digest
        slot = self._slot(digest)
        if digest != _ZERO and self._slots[slot] == _NONE:
            self._slots[slot] = index
            self._state[index] = _LEADS

    def find(self, digest: int, expected: int) -> int:
        """A block with this digest, ``expected`` if that has it; -1 for none."""
        first = self._slots[self._slot(digest)]
        if first == _NONE:
            return -1
        self._state[first] = _WANTED
        if 0 <= expected < len(self._digests) and self._digests[expected] == digest:
            return expected
        return first

    def unwanted(self) -> Iterator[int]:
        """The blocks nobody found; of equal ones the first."""
        return (index for index, state in enumerate(self._state) if state == _LEADS)

    def _slot(self, digest: int) -> int:
        """Where a block of this digest is entered, or would be."""
        slot = digest & self._mask
        while (index := self._slots[slot]) != _NONE and self._digests[index] != digest:
            slot = slot + 1 & self._mask
        return slot
