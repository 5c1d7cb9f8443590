"""Which covers a pair of images gets: the strategy, by size and memory.

* Small images are compared in one piece.
* In larger ones, blocks that both hold are found first (``blocks``); what is left of
  the new image, *changed*, is compared with what is left of the base, *vanished*, in
  one piece. That is as good as comparing the images whole, and costs less.
* Where even that does not fit into memory, changed is cut into windows, and each is
  compared with the pieces of vanished that it most resembles (``windows``).

Measured in ``payload.md`` section 7.3; the engine is a function, handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Final

from sealift.payload.delta.blocks import block_size, find_shared
from sealift.payload.delta.covers import Covers, checked, merged
from sealift.payload.delta.extents import placed
from sealift.payload.delta.windows import engine_memory, width_for, windows
from sealift.payload.images import pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.payload.delta.covers import Engine
    from sealift.payload.images import Image

    Tick = Callable[[str, int, int], None]
    """``tick(step, done, total)``; it may raise to end the work."""

WHOLE_MAX: Final = 128 << 20
"""Bytes of the largest image that is compared whole."""


class Strategy(Enum):
    """How covers were found."""

    WHOLE = "whole"
    BLOCKS = "blocks"
    WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class Matched:
    """The covers of a pair, and the digests of both images, read on the way."""

    covers: Covers
    strategy: Strategy
    base_sha256: bytes
    new_sha256: bytes


def match(base: Image, new: Image, engine: Engine, memory: int, tick: Tick) -> Matched:
    """Find covers with at most ``memory`` bytes.

    Raises:
        DeltaMemoryError: too little for any strategy; nothing was read.
        EngineError: as :func:`sealift.payload.delta.covers.checked`.
        LengthError: an image holds fewer bytes than it said.
    """
    width_for(memory)
    sums = Digests(tick, base.length + new.length)
    small = max(base.length, new.length) <= WHOLE_MAX
    if small and engine_memory(base.length, new.length) <= memory:
        covers, strategy = _match_whole(base, new, engine, sums, tick), Strategy.WHOLE
    else:
        covers, strategy = _match_rest(base, new, engine, memory, sums, tick)
    return Matched(covers, strategy, sums.base.digest(), sums.new.digest())


class Digests:
    """The digests of both images, taken while they are read for the first time."""

    def __init__(self, tick: Tick, total: int) -> None:
        self.base = sha256()
        self.new = sha256()
        self._tick = tick
        self._total = total
        self._done = 0

    def see_base(self, piece: bytes) -> None:
        """The next bytes of the base."""
        self.base.update(piece)
        self._count(len(piece))

    def see_new(self, piece: bytes) -> None:
        """The next bytes of the new image."""
        self.new.update(piece)
        self._count(len(piece))

    def _count(self, length: int) -> None:
        self._done += length
        self._tick("reading", self._done, self._total)


def _match_whole(
    base: Image, new: Image, engine: Engine, sums: Digests, tick: Tick
) -> Covers:
    old_bytes = _read(base, sums.see_base)
    new_bytes = _read(new, sums.see_new)
    tick("matching", 0, new.length)
    found = engine(old_bytes, new_bytes)
    tick("matching", new.length, new.length)
    return checked(found, base.length, new.length)


def _read(image: Image, see: Callable[[bytes], None]) -> bytes:
    room = BytesIO()
    for piece in pieces(image):
        see(piece)
        room.write(piece)
    return room.getvalue()


def _match_rest(
    base: Image, new: Image, engine: Engine, memory: int, sums: Digests, tick: Tick
) -> tuple[Covers, Strategy]:
    size = block_size(base.length, new.length, memory // 2)
    shared = find_shared(base, new, size, sums.see_base, sums.see_new)
    changed, vanished = shared.changed, shared.vanished
    covers, parts, done = Covers(), 0, 0
    for old_part, new_part in windows(
        base, new, vanished, changed, memory - shared.memory
    ):
        tick("matching", done, changed.total)
        found = engine(old_part.read(base), new_part.read(new))
        bounded = checked(found, old_part.total, new_part.total)
        for cover in placed(bounded, new_part, old_part):
            covers.add(cover.new, cover.base, cover.length)
        parts, done = parts + 1, done + new_part.total
    tick("matching", changed.total, changed.total)
    strategy = Strategy.WINDOWS if parts > 1 else Strategy.BLOCKS
    return merged(shared.covers, covers), strategy
