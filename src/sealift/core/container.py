"""The head of a payload container, byte for byte: header, segment digests, entries.

A container is ``head ‖ frames``. The head says what each segment of the new image is
and where its frame lies; the frames hold the bytes (``core.payload``). Layout and
limits are those of ``docs/formats.md``, "Payload container"; there is one version and
no option.

The rules of the reader:

* Facts come from metadata first: :func:`check_bounds` before a byte is fetched, then
  the digest of the head, and only then is the head parsed (C-08, C-09).
* Every field is compared with what was signed; the tree root over the segment digests
  must be the one under the offline keys.
* The head is read through ``read_at`` in small pieces: 64 GiB images have heads of
  4.3 MiB, and a device's memory must not grow with them.
* There is one form: what parses, writes back as the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.errors import ContainerError, DigestError, LimitError
from sealift.core.merkle import tree_root
from sealift.core.varints import VARINT_MAX, read_svarint, read_varint, svarint, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sealift.core.types import Artifact, Container

MAGIC: Final = b"SEALPAY\x01"
HEADER_SIZE: Final = 144
DIGEST_SIZE: Final = 32
IMAGE_MAX: Final = 1 << 36
"""Bytes of the largest image or base, 64 GiB."""
SEGMENTS_MAX: Final = 65_536
SEGMENT_LOG2: Final = range(16, 21)
ENTRY_MAX: Final = 36
"""Bytes of the longest entry: kind, frame length in three bytes, frame digest."""

ReadAt = Callable[[int, int], bytes]
"""``read_at(offset, length)`` gives those bytes, fewer only where the data ends."""

_LAYOUT: Final = struct.Struct("<8sBBHIQQQ32s32s32sII")
_PIECE: Final = 65_536
_NO_BASE: Final = bytes(DIGEST_SIZE)


class Kind(IntEnum):
    """What a container starts from."""

    FULL = 0
    DELTA = 1


class Op(IntEnum):
    """How one segment comes about; the same numbers as in its entry."""

    ZERO = 0
    COPY = 1
    REPLACE = 2
    DELTA = 3


_KINDS: Final = {bytes([op]): op for op in Op}
_FRAMED: Final = frozenset({Op.REPLACE, Op.DELTA})
_ONLY_DELTA: Final = frozenset({Op.COPY, Op.DELTA})


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of the new image and where its bytes come from. Offsets in bytes.

    ``sha256`` is the digest of the plain bytes, under the offline root. For REPLACE and
    DELTA ``frame_offset`` counts from the start of the container; for COPY
    ``base_offset`` counts from the start of the base.
    """

    index: int
    offset: int
    length: int
    sha256: bytes
    op: Op
    base_offset: int = 0
    frame_offset: int = 0
    frame_length: int = 0
    frame_sha256: bytes = b""

    @property
    def framed(self) -> bool:
        """Whether it needs bytes from the container."""
        return self.op in _FRAMED

    def entry(self) -> bytes:
        """The entry of this segment as it stands in the head."""
        if self.op is Op.COPY:
            return bytes([self.op]) + svarint(self.base_offset - self.offset)
        if self.framed:
            return bytes([self.op]) + varint(self.frame_length) + self.frame_sha256
        return bytes([self.op])


@dataclass(frozen=True, slots=True)
class Header:
    """The first 144 bytes. ``frames_length`` is the sum of all frame lengths."""

    kind: Kind
    segment_size: int
    head_length: int
    image_length: int
    base_length: int
    frames_length: int
    image_sha256: bytes
    base_sha256: bytes | None
    segment_root: bytes
    count: int

    def encode(self) -> bytes:
        """The header as bytes."""
        return _LAYOUT.pack(
            MAGIC,
            self.kind,
            self.segment_size.bit_length() - 1,
            0,
            self.head_length,
            self.image_length,
            self.base_length,
            self.frames_length,
            self.image_sha256,
            self.base_sha256 or _NO_BASE,
            self.segment_root,
            self.count,
            0,
        )

    @classmethod
    def decode(cls, raw: bytes) -> Header:
        """Read 144 bytes; fields are compared with each other, with metadata later.

        Raises:
            ContainerError: not our one version, a reserved field is set, or the fields
                contradict each other.
            LimitError: a size or a count beyond the format.
        """
        if len(raw) != HEADER_SIZE:
            raise ContainerError("container: the header is cut short")
        (
            magic,
            kind,
            log2,
            zero,
            head_length,
            image_length,
            base_length,
            frames_length,
            image_sha256,
            base_sha256,
            segment_root,
            count,
            zero_too,
        ) = _LAYOUT.unpack(raw)
        if magic != MAGIC:
            raise ContainerError("container: not a payload container of version 1")
        if kind not in (Kind.FULL, Kind.DELTA) or zero or zero_too:
            raise ContainerError("container: unknown kind or a reserved field is set")
        if log2 not in SEGMENT_LOG2 or not 1 <= image_length <= IMAGE_MAX:
            raise LimitError("container: segment size or image length out of range")
        if kind == Kind.FULL and (base_length or base_sha256 != _NO_BASE):
            raise ContainerError("container: a full container names a base")
        if kind == Kind.DELTA and not 1 <= base_length <= IMAGE_MAX:
            raise LimitError("container: base length out of range")
        if count > SEGMENTS_MAX:
            raise LimitError("container: too many segments")
        if count != segment_count(image_length, 1 << log2):
            raise ContainerError("container: segment count and image length disagree")
        return cls(
            kind=Kind(kind),
            segment_size=1 << log2,
            head_length=head_length,
            image_length=image_length,
            base_length=base_length,
            frames_length=frames_length,
            image_sha256=image_sha256,
            base_sha256=base_sha256 if kind == Kind.DELTA else None,
            segment_root=segment_root,
            count=count,
        )


def segment_count(image_length: int, segment_size: int) -> int:
    """How many segments an image has; only the last may be short."""
    return -(-image_length // segment_size)


def check_bounds(artifact: Artifact, container: Container) -> None:
    """Refuse sizes no container of this image can have, before anything is fetched.

    Raises:
        LimitError: image, segments, head, base or container beyond the format.
        ContainerError: the sizes contradict each other.
    """
    size = artifact.segment_size
    if size not in {1 << log2 for log2 in SEGMENT_LOG2}:
        raise LimitError("container: segment size out of range", segment_size=size)
    if not 1 <= artifact.length <= IMAGE_MAX:
        raise LimitError("container: image length out of range", length=artifact.length)
    count = segment_count(artifact.length, size)
    if count > SEGMENTS_MAX:
        raise LimitError("container: too many segments", count=count)
    smallest = HEADER_SIZE + (DIGEST_SIZE + 1) * count
    largest = HEADER_SIZE + (DIGEST_SIZE + ENTRY_MAX) * count
    if not smallest <= container.head_length <= largest:
        raise LimitError(
            "container: no head of this image has this length",
            head_length=container.head_length,
        )
    if container.length < container.head_length:
        raise ContainerError("container: shorter than its head")
    if container.length - container.head_length > artifact.length:
        raise LimitError("container: longer than the image and its head")
    if (
        container.base_sha256 is not None
        and not 1 <= container.base_length <= IMAGE_MAX
    ):
        raise LimitError("container: base length out of range")


def check_segment(header: Header, segment: Segment) -> None:
    """Refuse a segment that has no place in a container with this header.

    Raises:
        ContainerError: it uses a base that is not there, leaves the base, has another
            length than its place asks for, or a frame where there must be none.
        LimitError: its frame is too large.
    """
    at, length = segment.index, segment.length
    if segment.op in _ONLY_DELTA and header.kind is not Kind.DELTA:
        raise ContainerError("container: a full container uses a base", segment=at)
    if length != min(header.segment_size, header.image_length - segment.offset):
        raise ContainerError("container: a segment of wrong length", segment=at)
    if segment.framed != bool(segment.frame_length):
        raise ContainerError("container: an empty or a needless frame", segment=at)
    if segment.frame_length > length - (segment.op is Op.DELTA):
        raise LimitError("container: a frame larger than its segment", segment=at)
    if segment.op is Op.COPY and not (
        0 <= segment.base_offset <= header.base_length - length
    ):
        raise ContainerError("container: a copy leaves the base", segment=at)


class Head:
    """A head that was verified against metadata; made by :func:`open_head` only."""

    def __init__(self, header: Header, read_at: ReadAt) -> None:
        self.header = header
        self._read_at = read_at

    def segments(self) -> Iterator[Segment]:
        """All segments in order, read piece by piece.

        Raises:
            ContainerError, LimitError: an entry is not what the format allows.
        """
        header = self.header
        digests = _Cursor(self._read_at, HEADER_SIZE, _entries_at(header.count))
        entries = _Cursor(self._read_at, digests.stop, header.head_length)
        frame_offset = header.head_length
        for index in range(header.count):
            found = _segment(
                header, index, digests.take(DIGEST_SIZE), entries, frame_offset
            )
            check_segment(header, found)
            frame_offset += found.frame_length
            yield found
        if entries.left or frame_offset != header.head_length + header.frames_length:
            raise ContainerError("container: entries do not end where the head ends")


def open_head(read_at: ReadAt, artifact: Artifact, container: Container) -> Head:
    """Verify a head against signed facts, all of it, and only then hand it out.

    ``read_at`` reads the head, which is kept elsewhere and at least
    ``container.head_length`` bytes long.

    Raises:
        DigestError: these are not the signed bytes; nothing was parsed.
        ContainerError: a field, the tree root or an entry contradicts metadata or the
            format.
        LimitError: a size or a count beyond the format.
    """
    check_bounds(artifact, container)
    _check_digest(read_at, container)
    header = Header.decode(read_at(0, HEADER_SIZE))
    _check_facts(header, artifact, container)
    head = Head(header, read_at)
    if tree_root(found.sha256 for found in head.segments()) != artifact.segment_root:
        raise ContainerError("container: segment digests are not under the signed root")
    return head


def encode_head(header: Header, segments: Iterable[Segment]) -> bytes:
    """Header, digests and entries as one run of bytes."""
    found = list(segments)
    digests = b"".join(segment.sha256 for segment in found)
    entries = b"".join(segment.entry() for segment in found)
    return header.encode() + digests + entries


class _Cursor:
    """Reads ``[start, stop)`` of something in order, 64 KiB at a time."""

    def __init__(self, read_at: ReadAt, start: int, stop: int) -> None:
        self._read_at = read_at
        self._next = start
        self.stop = stop
        self._piece = b""
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return self.stop - self._next + len(self._piece) - self._at

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if length > self.left:
            raise ContainerError("container: an entry passes the end of the head")
        if length > len(self._piece) - self._at:
            self._fill()
        found = self._piece[self._at : self._at + length]
        self._at += length
        return found

    def varint(self) -> int:
        """The next varint."""
        return self._number(read_varint)

    def svarint(self) -> int:
        """The next signed varint."""
        return self._number(read_svarint)

    def _number(self, read: Callable[..., tuple[int, int]]) -> int:
        if len(self._piece) - self._at < VARINT_MAX and self._next < self.stop:
            self._fill()
        value, self._at = read(self._piece, self._at, ContainerError)
        return value

    def _fill(self) -> None:
        want = min(_PIECE, self.stop - self._next)
        fresh = self._read_at(self._next, want)
        if len(fresh) != want:
            raise ContainerError("container: the head is cut short")
        self._next += want
        self._piece = self._piece[self._at :] + fresh
        self._at = 0


def _entries_at(count: int) -> int:
    return HEADER_SIZE + DIGEST_SIZE * count


def _check_digest(read_at: ReadAt, container: Container) -> None:
    digest = sha256()
    cursor = _Cursor(read_at, 0, container.head_length)
    while cursor.left:
        digest.update(cursor.take(min(_PIECE, cursor.left)))
    if digest.digest() != container.head_sha256:
        raise DigestError("container: the head is not the signed one")


def _check_facts(header: Header, artifact: Artifact, container: Container) -> None:
    """Every field of the header against metadata."""
    facts = {
        "kind": (
            header.kind,
            Kind.FULL if container.base_sha256 is None else Kind.DELTA,
        ),
        "segment size": (header.segment_size, artifact.segment_size),
        "head length": (header.head_length, container.head_length),
        "image length": (header.image_length, artifact.length),
        "base length": (header.base_length, container.base_length),
        "frames": (header.frames_length, container.length - container.head_length),
        "image digest": (header.image_sha256, artifact.sha256),
        "base digest": (header.base_sha256, container.base_sha256),
        "segment root": (header.segment_root, artifact.segment_root),
    }
    for name, (found, signed) in facts.items():
        if found != signed:
            raise ContainerError(f"container: {name} is not the signed one", fact=name)


def _segment(
    header: Header, index: int, digest: bytes, entries: _Cursor, frame_offset: int
) -> Segment:
    """Parse one entry."""
    op, offset = _KINDS.get(entries.take(1)), index * header.segment_size
    if op is None:
        raise ContainerError("container: unknown kind of segment", segment=index)
    length = min(header.segment_size, header.image_length - offset)
    if op is Op.ZERO:
        return Segment(index, offset, length, digest, op)
    if op is Op.COPY:
        base = offset + entries.svarint()
        return Segment(index, offset, length, digest, op, base_offset=base)
    size, frame_digest = entries.varint(), entries.take(DIGEST_SIZE)
    return Segment(
        index, offset, length, digest, op, 0, frame_offset, size, frame_digest
    )
