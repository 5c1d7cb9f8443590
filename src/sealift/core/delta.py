"""DELTA frames: one segment as ops over the base, both ways.

A DELTA frame is six varints and three packed streams: *control* says in ops how the
segment is put together, *difference* holds what is added to bytes of the base, and
*literal* the bytes that come from nowhere. Layout and limits are those of
``docs/formats.md``, "DELTA frames".

The rules of the reader (a frame is untrusted even after its digest: the keys that name
it are online):

* Ops fill the segment in order and name no place in the image, so neither gap nor
  overlap can be said. Every op has at least one byte; their sum is the segment.
* Whatever is taken from the base lies in the base: ``length <= base - offset``.
* Streams are decoded as their bytes are needed, 64 KiB at a time; both dictionaries
  together are no larger than the segment. No list of ops is ever held.
* All that was announced must be used, to the last byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from sealift.core.container import Op
from sealift.core.errors import LimitError, PatchError
from sealift.core.streams import PackedStream, unpack
from sealift.core.sums import SIZE, add, subtract
from sealift.core.varints import read_svarint, read_varint, svarint, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sealift.core.container import ReadAt

CONTROL_MAX: Final = 262_144
"""Plain bytes of a control stream."""
OPS_MAX: Final = 65_536
"""Ops of one segment."""

_OPS: Final = (Op.COPY, Op.ZERO, Op.DELTA, Op.REPLACE)
"""Ops by their number in a control stream: even ones use the base."""
_FROM_BASE: Final = frozenset({Op.COPY, Op.DELTA})


class Extent(NamedTuple):
    """One op: the next ``length`` bytes of the segment, and where in the base from.

    COPY takes bytes of the base as they are, DELTA adds the next difference bytes to
    them (mod 256), REPLACE takes the next literal bytes, ZERO is zero bytes.
    """

    op: Op
    length: int
    base_offset: int = 0


class Stream(NamedTuple):
    """A packed stream as it lies in a frame, and the length of its plain bytes."""

    packed: memoryview
    length: int


class Streams(NamedTuple):
    """The three streams of a DELTA frame, within the limits of the format."""

    control: Stream
    difference: Stream
    literal: Stream


@dataclass(frozen=True, slots=True)
class Base:
    """The image a delta starts from: its ``length`` signed bytes and not one more.

    ``read_at`` may be asked by several threads at once.
    """

    read_at: ReadAt
    length: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes.

        Raises:
            PatchError: they are not in the base, or the base has shrunk.
        """
        if offset < 0 or length > self.length - offset:
            raise PatchError("payload: a frame reaches beyond its base")
        found = self.read_at(offset, length)
        if len(found) != length:
            raise PatchError("payload: the base ends too early")
        return found


# ── reading ──────────────────────────────────────────────────────────────────────────
def decode_delta(frame: bytes, offset: int, length: int, base: Base) -> bytes:
    """The ``length`` bytes at ``offset`` of the image that ``frame`` stands for.

    Memory: the result, one more segment size for dictionaries, the control stream, and
    well under 1 MiB besides. The result still has to be compared with its digest.

    Raises:
        PatchError: the frame contradicts itself, or does not give exactly the segment.
        LimitError: a limit of the format is passed.
    """
    streams = read_streams(frame, length)
    room = BytesIO(bytes(length))  # before the decoders take their dictionaries
    control = unpack(*streams.control)
    difference = PackedStream(*streams.difference)
    literal = PackedStream(*streams.literal)
    extents = read_control(control, offset, length)
    _build(extents, base, difference, literal, room)
    difference.finish()
    literal.finish()
    return room.getvalue()


def read_streams(frame: bytes, length: int) -> Streams:
    """The streams of the DELTA frame of a segment of ``length`` bytes; none is decoded.

    Raises:
        PatchError: they do not fill the frame, or a number is malformed.
        LimitError: one is larger than its limit, or a number longer than nine bytes.
    """
    numbers, at = [], 0
    for _ in range(6):
        value, at = read_varint(frame, at, PatchError)
        numbers.append(value)
    plain, packed = numbers[::2], numbers[1::2]
    if plain[0] > CONTROL_MAX or plain[1] + plain[2] > length:
        raise LimitError("payload: a stream of a frame is larger than its limit")
    if at + sum(packed) != len(frame):
        raise PatchError("payload: the streams do not fill their frame")
    stops = list(accumulate(packed, initial=at))
    view = memoryview(frame)
    return Streams(*(Stream(view[stops[i] : stops[i + 1]], plain[i]) for i in range(3)))


def read_control(control: bytes, offset: int, length: int) -> Iterator[Extent]:
    """The ops of a segment of ``length`` bytes at ``offset`` in the image, in order.

    Places in the base are checked by whoever reads them (:meth:`Base.read`).

    Raises:
        PatchError: malformed, an op of no bytes, or ops for more or less than that.
        LimitError: too many ops, or a number longer than nine bytes.
    """
    at = count = 0
    expected, left = offset, length
    while at < len(control):
        value, at = read_varint(control, at, PatchError)
        op, size = _OPS[value & 3], value >> 2
        count += 1
        if count > OPS_MAX:
            raise LimitError("payload: too many ops in a frame")
        if not 1 <= size <= left:
            raise PatchError("payload: an op does not fit its segment")
        left -= size
        if op in _FROM_BASE:
            move, at = read_svarint(control, at, PatchError)
            source = expected + move
            expected = source + size
            yield Extent(op, size, source)
        else:
            yield Extent(op, size)
    if left:
        raise PatchError("payload: the ops do not fill their segment")


def _build(
    extents: Iterable[Extent],
    base: Base,
    difference: PackedStream,
    literal: PackedStream,
    room: BytesIO,
) -> None:
    """Write what the ops say.

    Differences are added for 64 KiB at once, since a segment may have thousands of ops
    of a few bytes each.
    """
    at, plain, added = 0, bytearray(SIZE), bytearray(SIZE)
    for op, length, source in _cut(extents):
        stop = at + length
        if op in _FROM_BASE:
            plain[at:stop] = base.read(source, length)
        if op is Op.DELTA:
            added[at:stop] = difference.take(length)
        elif op is Op.REPLACE:
            plain[at:stop] = literal.take(length)
        at = stop
        if at == SIZE:
            room.write(add(plain, added))
            at, plain, added = 0, bytearray(SIZE), bytearray(SIZE)
    room.write(add(plain[:at], added[:at]))


def _cut(extents: Iterable[Extent]) -> Iterator[tuple[Op, int, int]]:
    """The same ops, none of them across a multiple of :data:`SIZE` in the segment."""
    left = SIZE
    for op, length, source in extents:
        while length > left:
            yield op, left, source
            length, source, left = length - left, source + left, SIZE
        yield op, length, source
        left = left - length or SIZE


# ── writing ──────────────────────────────────────────────────────────────────────────
def encode_delta(
    plain: bytes,
    offset: int,
    extents: Sequence[Extent],
    base: Base,
    pack: Callable[[bytes], bytes],
) -> bytes:
    """The DELTA frame of the segment ``plain``, which lies at ``offset`` in the image.

    ``extents`` make up the segment in order; ``pack`` makes packed streams
    (``core.streams``). A frame that is no smaller than its segment has no place in a
    container; its maker takes REPLACE then.

    Raises:
        PatchError: the extents do not make these bytes out of this base.
        LimitError: more ops, or a longer control stream, than a segment may have.
    """
    control, difference, literal = bytearray(), bytearray(), bytearray()
    at, expected = 0, offset
    _check_sum(extents, len(plain))
    for op, length, source in extents:
        piece = plain[at : at + length]
        at += length
        control += varint(length << 2 | _OPS.index(op))
        if op in _FROM_BASE:
            control += svarint(source - expected)
            expected = source + length
            difference += _difference(op, piece, base.read(source, length))
        elif op is Op.REPLACE:
            literal += piece
        elif any(piece):
            raise PatchError("payload: ZERO stands for other bytes")
    if len(extents) > OPS_MAX or len(control) > CONTROL_MAX:
        raise LimitError("payload: too many ops for a segment")
    return _frame([bytes(control), bytes(difference), bytes(literal)], pack)


def _check_sum(extents: Sequence[Extent], length: int) -> None:
    lengths = [extent.length for extent in extents]
    if min(lengths, default=0) < 1 or sum(lengths) != length:
        raise PatchError("payload: the extents do not fill their segment")


def _difference(op: Op, plain: bytes, found: bytes) -> bytes:
    """What is added to the base to get ``plain``; nothing for COPY."""
    if op is Op.DELTA:
        steps = range(0, len(plain), SIZE)
        return b"".join(
            subtract(plain[at : at + SIZE], found[at : at + SIZE]) for at in steps
        )
    if plain != found:
        raise PatchError("payload: COPY stands for other bytes")
    return b""


def _frame(plain: list[bytes], pack: Callable[[bytes], bytes]) -> bytes:
    packed = [pack(stream) for stream in plain]
    head = b"".join(
        varint(len(one)) + varint(len(other))
        for one, other in zip(plain, packed, strict=True)
    )
    return head + b"".join(packed)
