"""Windows: comparing in parts what is too large to be compared at once.

The new bytes are cut into windows of 16 to 128 MiB. For each, the parts of the base
that it most resembles are chosen by *anchors*: places whose neighbourhood has a certain
look, so that the same content has the same anchors wherever it lies. Of the base, only
a digest and a place per anchor are held, and only as many as fit into the table; where
there are more, both sides leave out the same ones.

What is lost against one comparison depends on the images: 1 % on a root file system of
which 90 % are shared blocks, 27 % in an earlier trial (``payload.md``, section 7.3).
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Final
from zlib import crc32

from sealift.core.errors import DeltaMemoryError
from sealift.payload.delta.extents import Extents
from sealift.payload.images import PIECE, exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.payload.images import Image

WIDTHS: Final = tuple(size << 20 for size in (128, 64, 32, 16, 8, 4, 2, 1))
"""Bytes of a window, largest first; below 16 MiB only where memory is very short."""
CELL: Final = 1 << 18
"""Bytes of the base that are chosen or left together."""
_CONTEXT: Final = 24
"""Bytes an anchor is told by."""
_FIRST: Final = bytes(range(7, 256, 16))
_SECOND: Final = bytes(range(1, 256, 16))
_LOOK: Final = re.compile(
    b"[%b][%b](?=(.{%d}))" % (re.escape(_FIRST), re.escape(_SECOND), _CONTEXT),
    re.DOTALL,
)
SPARE: Final = 8 << 20
"""Bytes a comparison takes beside what grows with its input."""
_OFTEN: Final = 256
"""Bytes from one anchor to the next in random data; code has fewer."""


def engine_memory(base: int, new: int) -> int:
    """Bytes that comparing so many bytes takes at most, both inputs included.

    ``hdiffpatch`` 2.6: a suffix array of four bytes for each of the base, a filter of
    one, both inputs and the result, which is no longer than the new bytes.
    """
    return 6 * base + 2 * new + SPARE


def windows(
    base: Image, new: Image, vanished: Extents, changed: Extents, memory: int
) -> Iterator[tuple[Extents, Extents]]:
    """What to compare with what: parts of ``vanished`` and of ``changed``, in order.

    Comparing one pair takes at most ``memory`` bytes (:func:`engine_memory`). Parts of
    ``changed`` that resemble nothing are left out.

    Raises:
        DeltaMemoryError: as :func:`width_for`.
        LengthError: an image holds fewer bytes than it said.
    """
    if not vanished.total or not changed.total:
        return
    if engine_memory(vanished.total, changed.total) <= memory:
        yield vanished, changed
        return
    slots = memory >> 7
    memory -= slots * 8
    width = width_for(memory)
    room = (memory - engine_memory(0, width)) // 6
    anchors = _Anchors(base, vanished, slots) if vanished.total > room else None
    for start in range(0, changed.total, width):
        part = changed.part(start, min(start + width, changed.total))
        likely = anchors.likely(new, part, room) if anchors else vanished
        if likely.total:
            yield likely, part


def width_for(memory: int) -> int:
    """The largest window that can be compared with twice as many bytes of a base.

    Raises:
        DeltaMemoryError: not even the smallest can.
    """
    for width in WIDTHS:
        if engine_memory(2 * width, width) <= memory:
            return width
    raise DeltaMemoryError(
        "delta: too little memory to compare anything", memory=memory
    )


class _Anchors:
    """Where the anchors of the base are: one number per slot, last come first found."""

    def __init__(self, base: Image, vanished: Extents, slots: int) -> None:
        self._vanished = vanished
        self._slots = array("Q", bytes(8)) * slots
        self._every = 1 + vanished.total // _OFTEN // slots
        for at, digest in self._of(base, vanished):
            self._slots[digest % slots] = digest << 32 | at // CELL + 1

    def likely(self, new: Image, part: Extents, room: int) -> Extents:
        """The cells of the base that ``part`` resembles, at most ``room`` bytes."""
        votes: Counter[int] = Counter()
        for _at, digest in self._of(new, part):
            held = self._slots[digest % len(self._slots)]
            if held >> 32 == digest:
                votes[(held & 0xFFFFFFFF) - 1] += 1
        best = sorted(votes, key=lambda cell: (-votes[cell], cell))[: room // CELL]
        chosen = Extents()
        for cell in sorted(best):
            stop = min((cell + 1) * CELL, self._vanished.total)
            for extent in self._vanished.places(cell * CELL, stop):
                chosen.add(*extent)
        return chosen

    def _of(self, image: Image, extents: Extents) -> Iterator[tuple[int, int]]:
        """The anchors in a stream: place in the stream, digest of what follows."""
        at = 0
        for start, stop in extents:
            for offset in range(start, stop, PIECE):
                piece = exactly(image, offset, min(PIECE, stop - offset))
                for found in _LOOK.finditer(piece):
                    digest = crc32(found[1])
                    if digest % self._every == 0:
                        yield at + found.start(), digest
                at += len(piece)
