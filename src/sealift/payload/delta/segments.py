"""One segment of the new image: its ops, its kind, its frame.

Covers say where bytes probably come from (``covers``); here it is seen what they have
in common, and the cheapest way of saying so is taken:

* equal bytes in long runs are COPY, all else in a cover is DELTA: most differences are
  zero, and LZMA says short runs of zeros for less than an op costs;
* what no cover has is REPLACE, long runs of zeros ZERO;
* a DELTA frame that is no smaller than the segment as it is becomes REPLACE.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from sealift.core.container import Op
from sealift.core.delta import OPS_MAX, Base, Extent, encode_delta
from sealift.core.errors import LimitError
from sealift.core.packer import Made
from sealift.core.payload import all_zero
from sealift.payload.delta.quality import SMALL
from sealift.payload.images import exactly

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sealift.payload.delta.covers import Cover, Covers
    from sealift.payload.delta.quality import Quality
    from sealift.payload.images import Image

_COPY_MIN: Final = 256, 1024
"""Bytes of the shortest COPY within a frame, in images up to 4 MiB and above."""
_ZEROS: Final = re.compile(rb"\0{256,}")
_POOR: Final = 4
"""A DELTA frame above one in this many of its plain bytes is compared with REPLACE."""


class SegmentMaker:
    """Makes the segments of one new image from one base, in any order and thread."""

    def __init__(
        self,
        base: Image,
        new: Image,
        covers: Covers,
        segment_size: int,
        quality: Quality,
        *,
        spare: bool = False,
    ) -> None:
        """``spare`` as in :meth:`sealift.payload.delta.quality.Quality.pack`."""
        self._base = Base(base.read_at, base.length)
        self._new = new
        self._covers = covers
        self._segment_size = segment_size
        self._copy_min = _COPY_MIN[new.length > SMALL]
        self._quality = quality
        self._spare = spare

    def make(self, index: int) -> Made:
        """Segment ``index``.

        Raises:
            LengthError, PatchError: an image holds fewer bytes than it said.
        """
        offset = index * self._segment_size
        plain = exactly(
            self._new, offset, min(self._segment_size, self._new.length - offset)
        )
        if all_zero(plain):
            return _zero(len(plain))
        covers = self._covers.within(offset, offset + len(plain))
        extents = find_extents(plain, offset, covers, self._base, self._copy_min)
        return self._made(plain, offset, extents)

    def _made(self, plain: bytes, offset: int, extents: list[Extent]) -> Made:
        op, _length, source = extents[0]
        if len(extents) == 1 and op is Op.COPY:
            return Made.of(op, plain, base_offset=source)
        delta = self._delta(plain, offset, extents)
        if delta and len(delta) * _POOR <= len(plain):
            return Made.of(Op.DELTA, plain, delta)
        whole = self._pack(plain)
        if delta and len(delta) < len(whole):
            return Made.of(Op.DELTA, plain, delta)
        return Made.of(Op.REPLACE, plain, whole)

    def _delta(self, plain: bytes, offset: int, extents: list[Extent]) -> bytes:
        """The DELTA frame; empty if nothing is of the base, or in too many ops."""
        based = any(extent.op in (Op.COPY, Op.DELTA) for extent in extents)
        if not based or len(extents) > OPS_MAX:
            return b""
        try:
            return encode_delta(plain, offset, extents, self._base, self._pack)
        except LimitError:
            return b""

    def _pack(self, plain: bytes) -> bytes:
        return self._quality.pack(plain, self._new.length, spare=self._spare)


@cache
def _zero(length: int) -> Made:
    return Made.of(Op.ZERO, bytes(length))


def find_extents(
    plain: bytes, offset: int, covers: Iterable[Cover], base: Base, copy_min: int
) -> list[Extent]:
    """The ops that make ``plain``, which lies at ``offset`` of the new image.

    ``covers`` lie within it. Pieces of :data:`base` are COPY where at least
    ``copy_min`` bytes in a row are equal.
    """
    extents: list[Extent] = []
    at = 0
    for cover in covers:
        start = cover.new - offset
        stop = start + cover.length
        extents += _foreign(plain[at:start])
        found = base.read(cover.base, cover.length)
        extents += _alike(plain[start:stop], found, cover.base, copy_min)
        at = stop
    extents += _foreign(plain[at:])
    return extents


def _foreign(plain: bytes) -> Iterator[Extent]:
    """Ops for bytes that no cover has."""
    for equal, length in _runs(_ZEROS, plain):
        yield Extent(Op.ZERO if equal else Op.REPLACE, length)


def _alike(plain: bytes, found: bytes, source: int, copy_min: int) -> Iterator[Extent]:
    """Ops for bytes that a cover has, and ``found`` in the base."""
    if plain == found:
        whole = Op.COPY if len(plain) >= copy_min else Op.DELTA
        yield Extent(whole, len(plain), source)
        return
    if len(plain) < copy_min:
        yield Extent(Op.DELTA, len(plain), source)
        return
    changed = int.from_bytes(plain, "little") ^ int.from_bytes(found, "little")
    pattern = _equal_runs(copy_min)
    for equal, length in _runs(pattern, changed.to_bytes(len(plain), "little")):
        yield Extent(Op.COPY if equal else Op.DELTA, length, source)
        source += length


@cache
def _equal_runs(shortest: int) -> re.Pattern[bytes]:
    return re.compile(rb"\0{%d,}" % shortest)


def _runs(pattern: re.Pattern[bytes], data: bytes) -> Iterator[tuple[bool, int]]:
    """``data`` cut into what the pattern matches and what it does not, as lengths."""
    at = 0
    for match in pattern.finditer(data):
        start, stop = match.span()
        if start > at:
            yield False, start - at
        yield True, stop - start
        at = stop
    if at < len(data):
        yield False, len(data) - at
