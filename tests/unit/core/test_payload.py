"""Frames, read: bound, digest, decode, digest, and never in another order."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from sealift.core.container import Op, Segment, open_head
from sealift.core.delta import Base
from sealift.core.errors import DigestError, LengthError, PatchError
from sealift.core.payload import check_frame, open_frame
from tests.containers import (
    SEGMENT,
    Case,
    frame_of,
    lzma_raw,
    noise,
    pack,
    reader,
    text,
)
from tests.vectors.payload.generate import every_kind


def segment_for(frame: bytes, plain: bytes, op: Op = Op.REPLACE) -> Segment:
    return Segment(
        0,
        0,
        len(plain),
        sha256(plain).digest(),
        op,
        frame_length=len(frame),
        frame_sha256=sha256(frame).digest(),
    )


def test_a_frame_with_a_wrong_digest_never_reaches_the_decoder() -> None:
    """C-08: garbage that LZMA would refuse is refused as what it is, by digest."""
    good = segment_for(lzma_raw(text(SEGMENT)), text(SEGMENT))
    garbage = noise(good.frame_length)
    with pytest.raises(DigestError):
        open_frame(check_frame(good, garbage))
    with pytest.raises(PatchError):
        open_frame(check_frame(segment_for(garbage, text(SEGMENT)), garbage))


def test_a_frame_of_another_length_is_refused() -> None:
    """W5: exactly the signed bytes, not one more or less."""
    frame = lzma_raw(text(SEGMENT))
    good = segment_for(frame, text(SEGMENT))
    for bad in (frame[:-1], frame + b"\0", b""):
        with pytest.raises(LengthError):
            open_frame(check_frame(good, bad))


def test_zeros_need_no_frame_and_must_be_signed_as_zeros() -> None:
    """A ZERO segment is verified like any other."""
    zeros = Segment(0, 0, 100, sha256(bytes(100)).digest(), Op.ZERO)
    assert open_frame(check_frame(zeros, b"")) == bytes(100)
    with pytest.raises(DigestError):
        open_frame(check_frame(replace(zeros, sha256=bytes(32)), b""))


@pytest.mark.parametrize("op", [Op.COPY, Op.DELTA])
def test_without_a_base_there_is_a_way_out(op: Op) -> None:
    """Where there is no base, the refusal says what to do instead."""
    frame = b"" if op is Op.COPY else b"frame"
    with pytest.raises(PatchError) as caught:
        open_frame(check_frame(segment_for(frame, text(100), op), frame))
    assert caught.value.hint


def test_the_reader_gives_the_segments_their_place() -> None:
    """Offsets in image and container are running sums, never stored (C-09)."""
    case: Case = pack("x", text(SEGMENT) + bytes(SEGMENT) + noise(5))
    head = open_head(reader(case.raw), case.artifact, case.container)
    first, zero, last = head.segments()
    assert (first.offset, zero.offset, last.offset) == (0, SEGMENT, 2 * SEGMENT)
    assert first.frame_offset == case.container.head_length
    assert last.frame_offset == first.frame_offset + first.frame_length
    assert not zero.framed
    assert last.frame_offset + last.frame_length == case.container.length


def test_a_base_that_changed_is_a_wrong_digest() -> None:
    """Self-healing begins here: a touched base shows in the segments it feeds."""
    case = every_kind()
    touched = bytearray(case.base)
    touched[1800] ^= 1
    outcomes = []
    for segment in open_head(
        reader(case.raw), case.artifact, case.container
    ).segments():
        frame = check_frame(segment, frame_of(segment, case.raw))
        try:
            open_frame(frame, Base(reader(bytes(touched)), len(touched)))
        except DigestError:
            outcomes.append(segment.op)
    assert outcomes == [Op.DELTA, Op.COPY]
