"""Payload containers for tests: sound ones, and what a thief of the online keys signs.

A hostile :class:`Case` is one a stolen Director could serve: the container is wrong, but
its length and digests were signed that way, so only the parser stands against it.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from itertools import islice

from sealift.core.container import (
    HEADER_SIZE,
    Header,
    Kind,
    Op,
    ReadAt,
    Segment,
    encode_head,
    open_head,
    segment_count,
)
from sealift.core.delta import Base, Extent, encode_delta, read_control, read_streams
from sealift.core.merkle import tree_root
from sealift.core.packer import ContainerWriter, Made, Packed, make_segment, pack_full
from sealift.core.payload import check_frame, open_frame
from sealift.core.streams import pack as pack_stream
from sealift.core.streams import unpack
from sealift.core.types import Artifact, Container
from sealift.core.varints import svarint, varint

SEGMENT = 65_536
NUMBERS = {Op.COPY: 0, Op.ZERO: 1, Op.DELTA: 2, Op.REPLACE: 3}
"""Ops as a control stream writes them."""

Pack = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Case:
    """A container, what metadata says of it, and what must come of reading it.

    ``base`` is the image a delta starts from, empty for a full container.
    """

    name: str
    artifact: Artifact
    container: Container
    raw: bytes
    error: str | None = None
    base: bytes = b""

    def read(self) -> bytes:
        """The image, by the shipped reader, in the order of a device."""
        head = open_head(reader(self.raw), self.artifact, self.container)
        base = Base(reader(self.base), len(self.base)) if self.base else None
        return b"".join(
            open_frame(check_frame(found, frame_of(found, self.raw)), base)
            for found in head.segments()
        )


def reader(raw: bytes) -> ReadAt:
    """``read_at`` of bytes in memory."""
    return lambda at, length: raw[at : at + length]


def frame_of(segment: Segment, raw: bytes) -> bytes:
    """The bytes of its frame in a container."""
    return raw[segment.frame_offset :][: segment.frame_length]


# ── contents ─────────────────────────────────────────────────────────────────────────
def text(length: int, seed: int = 0) -> bytes:
    """Bytes that compress well and are nowhere zero."""
    words = b"".join(b"sea lift %d\n" % (i + seed) for i in range(99))
    return (words * (length // len(words) + 1))[:length]


def noise(length: int) -> bytes:
    """Bytes that do not compress."""
    blocks = (sha256(b"%d" % i).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def lzma_raw(plain: bytes) -> bytes:
    """One raw LZMA2 stream, as a writer makes it, even where it gains nothing."""
    return filtered(plain, preset=6, dict_size=SEGMENT)


def filtered(plain: bytes, **options: int) -> bytes:
    """One raw LZMA2 stream, made with these parameters."""
    filters = [{"id": lzma.FILTER_LZMA2, **options}]
    return lzma.compress(plain, lzma.FORMAT_RAW, filters=filters)


# ── sound containers ─────────────────────────────────────────────────────────────────
def describe(image: bytes, root: bytes, segment_size: int = SEGMENT) -> Artifact:
    """What offline keys would sign of an image."""
    return Artifact(
        name="demo-board/rootfs-1.img",
        length=len(image),
        sha256=sha256(image).digest(),
        sha512=None,
        segment_size=segment_size,
        segment_root=root,
        hardware_ids=("demo-board-r1",),
        release_counter=1,
        version="1",
    )


def pack(name: str, image: bytes) -> Case:
    """The full container of an image."""
    out = BytesIO()
    packed = pack_full(
        reader(image), len(image), spool=BytesIO(), out=out, segment_size=SEGMENT
    )
    return _case(name, image, packed, out, "x.full")


def pack_delta(
    name: str,
    base: bytes,
    image: bytes,
    plan: Sequence[Op | int | Sequence[Extent]],
    stream: Pack = pack_stream,
) -> Case:
    """A delta container, its segments made as ``plan`` says.

    A number is a COPY from there, extents make a DELTA frame, and an op is ZERO or
    REPLACE.
    """
    out = BytesIO()
    writer = ContainerWriter(
        len(image),
        SEGMENT,
        spool=BytesIO(),
        out=out,
        base=(len(base), sha256(base).digest()),
    )
    for index, how in enumerate(plan):
        plain = image[index * SEGMENT :][:SEGMENT]
        writer.add(_made(plain, index * SEGMENT, how, base, stream))
    packed = writer.finish(sha256(image).digest())
    return replace(_case(name, image, packed, out, "x.delta"), base=base)


def _made(
    plain: bytes,
    offset: int,
    how: Op | int | Sequence[Extent],
    base: bytes,
    stream: Pack,
) -> Made:
    if isinstance(how, Op):
        return make_segment(plain)
    if isinstance(how, int):
        return Made.of(Op.COPY, plain, base_offset=how)
    frame = encode_delta(plain, offset, how, Base(reader(base), len(base)), stream)
    small = len(frame) < len(plain)
    return Made.of(Op.DELTA, plain, frame) if small else make_segment(plain)


def _case(name: str, image: bytes, packed: Packed, out: BytesIO, file: str) -> Case:
    artifact = describe(image, packed.segment_root)
    return Case(name, artifact, packed.container(file), out.getvalue())


# ── hostile containers ───────────────────────────────────────────────────────────────
def signed(case: Case, head: bytes, frames: bytes) -> Case:
    """The same case with other bytes, as if a stolen Director had signed them."""
    raw = head + frames
    container = replace(
        case.container,
        length=len(raw),
        sha256=sha256(raw).digest(),
        head_length=len(head),
        head_sha256=sha256(head).digest(),
    )
    return replace(case, container=container, raw=raw)


def parts(case: Case) -> tuple[Header, list[Segment], list[bytes]]:
    """Header, segments and the frame of each, of a sound case."""
    head = open_head(reader(case.raw), case.artifact, case.container)
    segments = list(head.segments())
    return head.header, segments, [frame_of(found, case.raw) for found in segments]


def rebuilt(
    case: Case, header: Header, segments: Sequence[Segment], frames: Sequence[bytes]
) -> Case:
    """A case with these entries and frames, lengths and digests told as they are."""
    told = [
        replace(found, frame_length=len(frame), frame_sha256=sha256(frame).digest())
        for found, frame in zip(segments, frames, strict=True)
    ]
    header = replace(
        header,
        head_length=HEADER_SIZE + sum(32 + len(found.entry()) for found in told),
        frames_length=sum(map(len, frames)),
    )
    return signed(case, encode_head(header, told), b"".join(frames))


def reframed(case: Case, index: int, frame: bytes) -> Case:
    """A case with one other frame, whose length and digest are told as they are."""
    header, segments, frames = parts(case)
    frames[index] = frame
    return rebuilt(case, header, segments, frames)


def wild_delta(
    name: str, segments: Sequence[Segment], frames: Sequence[bytes], base: bytes,
    image: bytes, segment_size: int = SEGMENT,
) -> Case:  # fmt: skip
    """A delta container of entries that no writer would take."""
    root = tree_root(found.sha256 for found in segments)
    header = Header(
        kind=Kind.DELTA,
        segment_size=segment_size,
        head_length=0,
        image_length=len(image),
        base_length=len(base),
        frames_length=0,
        image_sha256=sha256(image).digest(),
        base_sha256=sha256(base).digest(),
        segment_root=root,
        count=segment_count(len(image), segment_size),
    )
    container = Container("x.delta", 0, b"", 0, b"", len(base), sha256(base).digest())
    artifact = describe(image, root, segment_size)
    case = Case(name, artifact, container, b"", base=base)
    return rebuilt(case, header, segments, frames)


def one_frame(
    name: str, frame: bytes, base: bytes, image: bytes, segment_size: int = SEGMENT
) -> Case:
    """A delta container of a single DELTA segment."""
    digest = sha256(image).digest()
    segment = Segment(0, 0, len(image), digest, Op.DELTA)
    return wild_delta(name, [segment], [frame], base, image, segment_size)


# ── DELTA frames, field by field ─────────────────────────────────────────────────────
def control(*ops: tuple[Op, int] | tuple[Op, int, int]) -> bytes:
    """A control stream; the third number is the move from the expected place."""
    return b"".join(
        varint(length << 2 | NUMBERS[op]) + b"".join(map(svarint, move))
        for op, length, *move in ops
    )


def delta_frame(
    control: bytes,
    difference: bytes = b"",
    literal: bytes = b"",
    *,
    stream: Pack = bytes,
    plain: Sequence[int | None] = (None, None, None),
    packed: Sequence[int | None] = (None, None, None),
) -> bytes:
    """A DELTA frame of plain streams; ``plain`` and ``packed`` lie about lengths."""
    streams = [control, difference, literal]
    made = [stream(found) for found in streams]
    numbers = b"".join(
        varint(len(streams[i]) if plain[i] is None else plain[i] or 0)
        + varint(len(made[i]) if packed[i] is None else packed[i] or 0)
        for i in range(3)
    )
    return numbers + b"".join(made)


def control_of(extents: Sequence[Extent], offset: int) -> bytes:
    """The control stream of extents as they are, sound or not."""
    rows: list[tuple[Op, int] | tuple[Op, int, int]] = []
    expected = offset
    for op, length, source in extents:
        if op in {Op.COPY, Op.DELTA}:
            rows.append((op, length, source - expected))
            expected = source + length
        else:
            rows.append((op, length))
    return control(*rows)


def applied(
    extents: Iterable[Extent], base: bytes, difference: bytes, literal: bytes
) -> bytes:
    """What sound extents make: the format in its plainest words, byte by byte."""
    out, differences, literals = bytearray(), iter(difference), iter(literal)
    for op, length, source in extents:
        found = base[source : source + length]
        match op:
            case Op.COPY:
                out += found
            case Op.DELTA:
                out += bytes(byte + next(differences) & 255 for byte in found)
            case Op.REPLACE:
                out += bytes(islice(literals, length))
            case Op.ZERO:
                out += bytes(length)
    return bytes(out)


def taken_apart(frame: bytes) -> tuple[list[bytes], list[bytes]]:
    """The three streams of a sound DELTA frame: plain, and as they are packed."""
    streams = read_streams(frame, 1 << 20)
    packed = [bytes(stream.packed) for stream in streams]
    return [unpack(*stream) for stream in streams], packed


def understood(frame: bytes, offset: int, length: int, base: bytes) -> bytes:
    """What a sound DELTA frame stands for, without the decoder's windows and steps."""
    [ops, difference, literal], _packed = taken_apart(frame)
    return applied(read_control(ops, offset, length), base, difference, literal)
