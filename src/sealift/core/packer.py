"""Payload containers, written: segments one by one, frames spooled, the head last.

:class:`ContainerWriter` takes what became of each segment and writes nothing that the
reader would refuse; :func:`pack_full` feeds it with ZERO and REPLACE. Nothing here
opens a file, asks a clock or starts a process; the caller hands in how bytes are read,
spooled and mapped. Of an image, only the facts that its head consists of are held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

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
    check_segment,
    encode_head,
    segment_count,
)
from sealift.core.errors import ContainerError, LengthError, LimitError
from sealift.core.merkle import tree_root
from sealift.core.payload import all_zero
from sealift.core.streams import PRESET, pack
from sealift.core.types import SEGMENT_SIZE, Artifact, Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sealift.core.container import ReadAt
    from sealift.core.types import Bootable

_BATCH: Final = 32
_PIECE: Final = 1 << 20


class MapFunction(Protocol):
    """``map`` itself, or that of a pool of threads or processes."""

    def __call__(
        self, function: Callable[[bytes], Made], items: Iterable[bytes], /
    ) -> Iterable[Made]:
        """The results of ``function``, in the order of ``items``."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one segment: its digest, and how a reader gets it.

    ``frame`` is empty for ZERO and COPY; ``base_offset`` is for COPY.
    """

    op: Op
    length: int
    sha256: bytes
    frame: bytes = b""
    frame_sha256: bytes = b""
    base_offset: int = 0

    @classmethod
    def of(
        cls, op: Op, plain: bytes, frame: bytes = b"", *, base_offset: int = 0
    ) -> Made:
        """The segment ``plain`` by ``op``; digests are taken here."""
        framed = sha256(frame).digest() if frame else b""
        digest = sha256(plain).digest()
        return cls(op, len(plain), digest, frame, framed, base_offset)


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
    base_length: int = 0
    base_sha256: bytes | None = None

    def artifact(
        self,
        name: str,
        *,
        hardware_ids: tuple[str, ...],
        release_counter: int,
        version: str,
        bootable: Bootable | None = None,
    ) -> Artifact:
        """The image as the vendor describes it, under its target path."""
        return Artifact(
            name=name,
            length=self.image_length,
            sha256=self.image_sha256,
            sha512=None,
            segment_size=self.segment_size,
            segment_root=self.segment_root,
            hardware_ids=hardware_ids,
            release_counter=release_counter,
            version=version,
            bootable=bootable,
        )

    def container(self, name: str) -> Container:
        """The container under the name it will be fetched by."""
        return Container(
            name,
            self.length,
            self.sha256,
            self.head_length,
            self.head_sha256,
            self.base_length,
            self.base_sha256,
        )


class ContainerWriter:
    """Writes one container to ``out``: a full one, or with ``base`` a delta.

    ``base`` is length and SHA-256 of the image the delta starts from. Frames are
    gathered in ``spool`` (empty, read and write) while the head is not known yet, then
    copied behind it.

    Raises:
        LimitError: image or base are empty or larger than 64 GiB, or the image has too
            many segments of this size.
    """

    def __init__(
        self,
        image_length: int,
        segment_size: int,
        *,
        spool: BinaryIO,
        out: BinaryIO,
        base: tuple[int, bytes] | None = None,
    ) -> None:
        _check_sizes(image_length, segment_size)
        base_length, base_sha256 = base or (0, None)
        if base and not 1 <= base_length <= IMAGE_MAX:
            raise LimitError("payload: base length out of range", length=base_length)
        self._header = Header(
            kind=Kind.DELTA if base else Kind.FULL,
            segment_size=segment_size,
            head_length=0,
            image_length=image_length,
            base_length=base_length,
            frames_length=0,
            image_sha256=b"",
            base_sha256=base_sha256,
            segment_root=b"",
            count=segment_count(image_length, segment_size),
        )
        self._spool = spool
        self._out = out
        self._segments: list[Segment] = []

    def add(self, made: Made) -> None:
        """Take the next segment.

        Raises:
            ContainerError, LimitError: no container of this kind can hold it here.
        """
        index, size = len(self._segments), self._header.segment_size
        segment = Segment(
            index,
            index * size,
            made.length,
            made.sha256,
            made.op,
            base_offset=made.base_offset,
            frame_length=len(made.frame),
            frame_sha256=made.frame_sha256,
        )
        check_segment(self._header, segment)
        self._spool.write(made.frame)
        self._segments.append(segment)

    def finish(self, image_sha256: bytes) -> Packed:
        """Write head and frames, once all segments were added; what metadata will say.

        Raises:
            ContainerError: there are segments missing.
        """
        segments, header = self._segments, self._header
        if len(segments) != header.count:
            raise ContainerError("payload: not every segment of the image was added")
        entries = sum(len(segment.entry()) for segment in segments)
        header = replace(
            header,
            head_length=HEADER_SIZE + DIGEST_SIZE * len(segments) + entries,
            frames_length=sum(segment.frame_length for segment in segments),
            image_sha256=image_sha256,
            segment_root=tree_root(segment.sha256 for segment in segments),
        )
        head = encode_head(header, segments)
        length, digest = _assemble(head, self._spool, self._out)
        return Packed(
            image_length=header.image_length,
            image_sha256=image_sha256,
            segment_size=header.segment_size,
            segment_root=header.segment_root,
            length=length,
            sha256=digest,
            head_length=len(head),
            head_sha256=sha256(head).digest(),
            base_length=header.base_length,
            base_sha256=header.base_sha256,
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

    At most 32 segments are in memory. The same image, segment size, preset and version
    of liblzma give the same bytes, whatever ``apply`` is; it may be that of a process
    pool. ``progress(done, total)`` counts image bytes.

    Raises:
        LimitError: the image is empty, larger than 64 GiB, or in too many segments.
        LengthError: ``read_at`` gave fewer bytes than ``length`` promised.
    """
    writer = ContainerWriter(length, segment_size, spool=spool, out=out)
    image, done = sha256(), 0
    plains = _plain_segments(read_at, length, segment_size, image.update)
    for made in _make_segments(plains, apply, partial(make_segment, preset=preset)):
        writer.add(made)
        done += made.length
        progress(done, length)
    return writer.finish(image.digest())


def make_segment(plain: bytes, *, preset: int = PRESET) -> Made:
    """One segment of a full container; zeros need no frame."""
    if all_zero(plain):
        return Made.of(Op.ZERO, plain)
    return Made.of(Op.REPLACE, plain, pack(plain, preset=preset))


def _check_sizes(length: int, segment_size: int) -> None:
    if not 1 <= length <= IMAGE_MAX:
        raise LimitError("payload: image length out of range", length=length)
    if segment_size not in {1 << log2 for log2 in SEGMENT_LOG2}:
        raise LimitError(
            "payload: segment size out of range", segment_size=segment_size
        )
    if length > SEGMENTS_MAX * segment_size:
        raise LimitError("payload: too many segments for this image")


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
