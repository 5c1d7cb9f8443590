"""The frames of a payload container, read; its head is in ``core.container``.

:func:`check_frame` makes a :class:`Frame` of bytes, and :func:`open_frame` the plain
bytes of one segment of a frame, so the order is the only one allowed: bound, digest of
the frame, decode, digest of the segment (C-08). No decoder sees a byte whose digest was
not the signed one, and none can be made to produce more than the segment holds (C-15).

A segment depends on its frame and the base and on nothing else, so segments may be
opened in any order and by several threads at once. Writing is in ``core.packer``.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.container import SEGMENT_LOG2, Op
from sealift.core.delta import decode_delta
from sealift.core.errors import DigestError, LengthError, PatchError
from sealift.core.streams import unpack

if TYPE_CHECKING:
    from sealift.core.container import Segment
    from sealift.core.delta import Base

_ZEROS: Final = bytes(1 << SEGMENT_LOG2[-1])


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose bytes are the signed ones; :func:`check_frame` makes it."""

    segment: Segment
    raw: bytes


def check_frame(segment: Segment, raw: bytes) -> Frame:
    """The frame of ``segment``, if these are its signed bytes; empty if it has none.

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


def open_frame(frame: Frame, base: Base | None = None) -> bytes:
    """The plain bytes of the segment that this frame stands for.

    Beside the frame and the result it takes at most 2 MiB for segments of 1 MiB.

    Raises:
        DigestError: what it decodes to is not the signed segment: the frame is wrong,
            or the base is not the one it was made for.
        PatchError: it does not decode into exactly the segment, or needs a base and
            there is none, or leaves the base.
        LimitError: it passes a limit of the format.
    """
    segment = frame.segment
    plain = _decode(segment, frame.raw, base)
    if sha256(plain).digest() != segment.sha256:
        raise DigestError(
            "payload: a segment is not the signed one", segment=segment.index
        )
    return plain


def _decode(segment: Segment, raw: bytes, base: Base | None = None) -> bytes:
    if segment.op is Op.ZERO:
        return bytes(segment.length)
    if segment.op is Op.REPLACE:
        return unpack(raw, segment.length)
    if base is None:
        raise PatchError(
            "payload: a segment needs a base, and there is none",
            hint="install the full container instead",
            segment=segment.index,
        )
    if segment.op is Op.COPY:
        return base.read(segment.base_offset, segment.length)
    return decode_delta(raw, segment.offset, segment.length, base)


def all_zero(plain: bytes) -> bool:
    """Whether there is nothing else in (at most) a segment."""
    return plain == _ZEROS[: len(plain)]
