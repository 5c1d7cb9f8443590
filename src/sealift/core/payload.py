"""The frames of a payload container, both ways; its head is in ``core.container``.

Reading: :func:`check_frame` makes a :class:`Frame` of bytes, and :func:`open_frame` the
plain bytes of one segment of a frame, so the order is the only one allowed: bound,
digest of the frame, decode, digest of the segment (C-08). No decoder sees a byte whose
digest was not the signed one, and none can be made to produce more than the segment
holds (C-15).

Writing: :func:`pack_full` makes a full container (ZERO and REPLACE) from an image of
any size in bounded memory. It opens no file, asks no clock and starts no process; the
caller hands in how bytes are read, spooled and mapped. Delta containers parse already
(``core.container``); their COPY and DELTA segments cannot be decoded yet and are
refused.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from sealift.core.container import (
    DIGEST_SIZE,
    HEADER_SIZE,
    IMAGE_MAX,
    SEGMENT_LOG2,
    SEGMENTS_MAX,
    Header,
    Kind,
    Op,
    Segment,
    encode_head,
)
from sealift.core.errors import DigestError, LengthError, LimitError, PatchError
from sealift.core.merkle import tree_root
from sealift.core.types import SEGMENT_SIZE, Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sealift.core.container import ReadAt

PRESET: Final = 6
"""LZMA preset of writers that ask for none: 9 is the same for segments of 1 MiB."""

_DICTIONARY_MIN: Final = 4096
_STORED_GAIN: Final = 64
"""A segment is stored unless LZMA saves more than one byte in this many."""
_STEP: Final = 1 << 16
"""Bytes decoded at a time. Blocks of this size are used again by the allocator; those
of a whole segment go back to the system and come as fresh pages for every segment."""
_BATCH: Final = 32
_PIECE: Final = 1 << 20
_ZEROS: Final = bytes(1 << SEGMENT_LOG2[-1])


# ── reading ──────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose bytes are the signed ones; :func:`check_frame` makes it."""

    segment: Segment
    raw: bytes


def check_frame(segment: Segment, raw: bytes) -> Frame:
    """The frame of ``segment``, if these are its signed bytes; empty for ZERO.

    Raises:
        LengthError, DigestError: they are not.
    """
    if len(raw) != segment.frame_length:
        raise LengthError("payload: a frame of wrong length", segment=segment.index)
    if segment.framed and sha256(raw).digest() != segment.frame_sha256:
        raise DigestError(
            "payload: a frame is not the signed one", segment=segment.index
        )
    return Frame(segment, raw)


def open_frame(frame: Frame) -> bytes:
    """The plain bytes of the segment that this frame stands for.

    Raises:
        DigestError: what it decodes to is not the signed segment.
        PatchError: it does not decode into exactly the segment, or needs a base.
        LimitError: it would decode into more than the segment.
    """
    segment = frame.segment
    plain = _decode(segment, frame.raw)
    if sha256(plain).digest() != segment.sha256:
        raise DigestError(
            "payload: a segment is not the signed one", segment=segment.index
        )
    return plain


def _decode(segment: Segment, frame: bytes) -> bytes:
    if segment.op is Op.ZERO:
        return bytes(segment.length)
    if segment.op is Op.REPLACE:
        return unpack(frame, segment.length)
    raise PatchError(
        "payload: this version cannot build a segment from a base",
        hint="install the full container instead",
        segment=segment.index,
    )


def unpack(packed: bytes, length: int) -> bytes:
    """A packed stream of known plain length, bounded by it (format, "packed stream").

    As long as the plain bytes: stored. Shorter: one raw LZMA2 stream that reaches its
    end marker on the last byte. Only that marker tells a whole stream from one that
    lost its last byte.

    Raises:
        PatchError: malformed, cut short, too short a result, or bytes left over.
        LimitError: more than ``length`` bytes would come out.
    """
    if len(packed) > length or (not packed and length):
        raise PatchError("payload: a packed stream longer than its plain bytes")
    if len(packed) == length:
        return packed
    room = BytesIO(bytes(length))  # before the decoder takes its dictionary: see _STEP
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_filter(length)])
    try:
        plain = _inflate(decoder, packed, room, length)
        # With the output full the decoder stops short of the end marker.
        more = b"" if decoder.eof else decoder.decompress(b"", 1)
    except (lzma.LZMAError, EOFError) as error:
        raise PatchError("payload: a malformed LZMA2 stream") from error
    if more:
        raise LimitError("payload: a stream holds more than its segment")
    if not decoder.eof or decoder.unused_data or len(plain) != length:
        raise PatchError("payload: a stream does not end with its segment")
    return plain


def _inflate(
    decoder: lzma.LZMADecompressor, packed: bytes, room: BytesIO, length: int
) -> bytes:
    """What comes out, at most ``length`` bytes, gathered in ``room``."""
    left = length
    while left and (piece := decoder.decompress(packed, min(_STEP, left))):
        packed = b""
        left -= room.write(piece)
        if decoder.eof:
            break
    room.truncate(length - left)
    return room.getvalue()


def _filter(length: int, **options: int) -> dict[str, Any]:
    dictionary = max(_DICTIONARY_MIN, length)
    return {"id": lzma.FILTER_LZMA2, "dict_size": dictionary, **options}


# ── writing ──────────────────────────────────────────────────────────────────────────
class MapFunction(Protocol):
    """``map`` itself, or that of a pool of threads or processes."""

    def __call__(
        self, function: Callable[[bytes], Made], items: Iterable[bytes], /
    ) -> Iterable[Made]:
        """The results of ``function``, in the order of ``items``."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one segment: its digest, and its frame unless it is all zero."""

    length: int
    sha256: bytes
    frame: bytes
    frame_sha256: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """The facts of a container just written: what metadata will say of it."""

    image_length: int
    image_sha256: bytes
    segment_size: int
    segment_root: bytes
    length: int
    sha256: bytes
    head_length: int
    head_sha256: bytes

    def container(self, name: str) -> Container:
        """The container under the name it will be fetched by."""
        return Container(
            name, self.length, self.sha256, self.head_length, self.head_sha256
        )


def pack_full(
    read_at: ReadAt,
    length: int,
    *,
    spool: BinaryIO,
    out: BinaryIO,
    segment_size: int = SEGMENT_SIZE,
    preset: int = PRESET,
    apply: MapFunction = map,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Packed:
    """Write the full container of an image of ``length`` bytes to ``out``.

    Frames are gathered in ``spool`` (empty, read and write) while the head is not known
    yet, then copied behind it. At most 32 segments are in memory. The same image,
    segment size, preset and version of liblzma give the same bytes, whatever ``apply``
    is; it may be that of a process pool. ``progress(done, total)`` counts image bytes.

    Raises:
        LimitError: the image is empty, larger than 64 GiB, or in too many segments.
        LengthError: ``read_at`` gave fewer bytes than ``length`` promised.
    """
    if not 1 <= length <= IMAGE_MAX:
        raise LimitError("payload: image length out of range", length=length)
    if segment_size not in {1 << log2 for log2 in SEGMENT_LOG2}:
        raise LimitError(
            "payload: segment size out of range", segment_size=segment_size
        )
    if length > SEGMENTS_MAX * segment_size:
        raise LimitError("payload: too many segments for this image")
    image = sha256()
    plains = _plain_segments(read_at, length, segment_size, image.update)
    segments: list[Segment] = []
    for made in _make_segments(plains, apply, partial(make_segment, preset=preset)):
        spool.write(made.frame)
        offset = len(segments) * segment_size
        segments.append(_segment(len(segments), offset, made))
        progress(offset + made.length, length)
    root = tree_root(segment.sha256 for segment in segments)
    head = _head(segments, segment_size, length, image.digest(), root)
    total, digest = _assemble(head, spool, out)
    return Packed(
        image_length=length,
        image_sha256=image.digest(),
        segment_size=segment_size,
        segment_root=root,
        length=total,
        sha256=digest,
        head_length=len(head),
        head_sha256=sha256(head).digest(),
    )


def make_segment(plain: bytes, *, preset: int = PRESET) -> Made:
    """The digest and the frame of one segment; zeros need no frame."""
    digest = sha256(plain).digest()
    if all_zero(plain):
        return Made(len(plain), digest, b"", b"")
    packed = lzma.compress(
        plain, lzma.FORMAT_RAW, filters=[_filter(len(plain), preset=preset)]
    )
    worth = len(packed) < len(plain) - len(plain) // _STORED_GAIN
    frame = packed if worth else plain
    return Made(len(plain), digest, frame, sha256(frame).digest())


def all_zero(plain: bytes) -> bool:
    """Whether there is nothing else in (at most) a segment."""
    return plain == _ZEROS[: len(plain)]


def _plain_segments(
    read_at: ReadAt, length: int, segment_size: int, update: Callable[[bytes], object]
) -> Iterator[bytes]:
    for offset in range(0, length, segment_size):
        want = min(segment_size, length - offset)
        plain = read_at(offset, want)
        if len(plain) != want:
            raise LengthError("payload: the image is shorter than it said")
        update(plain)
        yield plain


def _make_segments(
    plains: Iterator[bytes], apply: MapFunction, make: Callable[[bytes], Made]
) -> Iterator[Made]:
    """Batch by batch, so that an eager ``apply`` does not take the whole image at once.

    Zeros are made here: a pool would spend its time on carrying them.
    """
    zeros: dict[int, Made] = {}
    while batch := list(islice(plains, _BATCH)):
        empty = [all_zero(plain) for plain in batch]
        work = [plain for plain, zero in zip(batch, empty, strict=True) if not zero]
        done = iter(apply(make, work))
        for plain, zero in zip(batch, empty, strict=True):
            if zero and len(plain) not in zeros:
                zeros[len(plain)] = make(plain)
            yield zeros[len(plain)] if zero else next(done)


def _segment(index: int, offset: int, made: Made) -> Segment:
    return Segment(
        index,
        offset,
        made.length,
        made.sha256,
        Op.REPLACE if made.frame else Op.ZERO,
        frame_length=len(made.frame),
        frame_sha256=made.frame_sha256,
    )


def _head(
    segments: list[Segment],
    segment_size: int,
    image_length: int,
    image_sha256: bytes,
    root: bytes,
) -> bytes:
    entries = sum(len(segment.entry()) for segment in segments)
    header = Header(
        kind=Kind.FULL,
        segment_size=segment_size,
        head_length=HEADER_SIZE + DIGEST_SIZE * len(segments) + entries,
        image_length=image_length,
        base_length=0,
        frames_length=sum(segment.frame_length for segment in segments),
        image_sha256=image_sha256,
        base_sha256=None,
        segment_root=root,
        count=len(segments),
    )
    return encode_head(header, segments)


def _assemble(head: bytes, spool: BinaryIO, out: BinaryIO) -> tuple[int, bytes]:
    """Write head and spooled frames; total length and digest of what was written."""
    out.write(head)
    digest, total = sha256(head), len(head)
    spool.seek(0)
    while piece := spool.read(_PIECE):
        out.write(piece)
        digest.update(piece)
        total += len(piece)
    return total, digest.digest()
