"""Frames: writer and reader agree, and a hostile frame costs neither memory nor time."""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core.container import Op, Segment, open_head
from sealift.core.errors import (
    DigestError,
    LengthError,
    LimitError,
    PatchError,
    SealiftError,
)
from sealift.core.packer import make_segment, pack_full
from sealift.core.payload import check_frame, open_frame
from sealift.core.streams import unpack
from tests.containers import Case, lzma_raw, noise, pack, text

SEGMENT = 65_536
EDGES = [1, 2, 4095, 4096, 4097, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT - 1,
         3 * SEGMENT, 3 * SEGMENT + 1]  # fmt: skip


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize("make", [bytes, text, noise])
def test_an_image_of_any_length_comes_back(
    length: int, make: Callable[[int], bytes]
) -> None:
    """Round trip at one byte, at each segment border, and beside it."""
    image = make(length)
    assert pack("x", image).read() == image


runs = st.tuples(
    st.sampled_from([b"\0", b"\0\0\0\x01", b"abc", b"\xff"]), st.integers(0, 40_000)
)
images = st.lists(runs | st.binary(max_size=200).map(lambda raw: (raw, 1)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(images)
def test_any_mixture_comes_back(pieces: list[tuple[bytes, int]]) -> None:
    """Round trip of runs, zeros and noise in any order."""
    image = b"".join(piece * count for piece, count in pieces) or b"\0"
    assert pack("x", image).read() == image


def test_a_pool_makes_the_same_container() -> None:
    """The way of mapping changes the time, not one byte."""
    image = text(40 * SEGMENT) + bytes(3 * SEGMENT) + noise(70_000)
    plain = pack("x", image)
    out = BytesIO()
    with ThreadPoolExecutor(2) as pool:
        packed = pack_full(
            lambda at, n: image[at : at + n],
            len(image),
            spool=BytesIO(),
            out=out,
            segment_size=SEGMENT,
            apply=pool.map,
        )
    assert out.getvalue() == plain.raw
    assert packed.container("x.full") == plain.container


def test_what_is_told_of_a_container_is_what_was_written() -> None:
    """Length and digests for metadata are those of the bytes in the file."""
    case = pack("x", text(SEGMENT) + noise(9))
    found, raw = case.container, case.raw
    assert (found.length, found.sha256) == (len(raw), sha256(raw).digest())
    assert found.head_sha256 == sha256(raw[: found.head_length]).digest()
    assert case.artifact.sha256 == sha256(text(SEGMENT) + noise(9)).digest()


def test_progress_reaches_the_end() -> None:
    """Progress counts image bytes, up to all of them."""
    seen: list[tuple[int, int]] = []
    image = bytes(2 * SEGMENT + 1)
    pack_full(
        lambda at, n: image[at : at + n],
        len(image),
        spool=BytesIO(),
        out=BytesIO(),
        segment_size=SEGMENT,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _total in seen] == [SEGMENT, 2 * SEGMENT, len(image)]


@pytest.mark.parametrize(
    ("length", "segment_size", "error"),
    [
        (0, SEGMENT, LimitError),
        (2**36 + 1, 1 << 20, LimitError),
        (2**32 + 1, SEGMENT, LimitError),
        (10, 1 << 15, LimitError),
        (10, SEGMENT, LengthError),
    ],
)
def test_an_image_no_container_can_hold_is_refused(
    length: int, segment_size: int, error: type[SealiftError]
) -> None:
    """Empty, too large, in too many segments, or shorter than announced."""
    with pytest.raises(error):
        pack_full(
            lambda at, n: b"",
            length,
            spool=BytesIO(),
            out=BytesIO(),
            segment_size=segment_size,
        )


def test_what_does_not_compress_is_stored() -> None:
    """A device does not spend LZMA time on bytes that gain nothing by it."""
    assert make_segment(noise(SEGMENT)).frame == noise(SEGMENT)
    almost = noise(SEGMENT - 600) + bytes(600)
    assert make_segment(almost).frame == almost
    assert len(make_segment(text(SEGMENT)).frame) < SEGMENT // 20
    assert make_segment(bytes(SEGMENT)).frame == b""


# ── reading ──────────────────────────────────────────────────────────────────────────
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
def test_a_segment_from_a_base_is_refused_with_a_way_out(op: Op) -> None:
    """Until deltas are decoded, the refusal says what to do instead."""
    frame = b"" if op is Op.COPY else b"frame"
    with pytest.raises(PatchError) as caught:
        open_frame(check_frame(segment_for(frame, text(100), op), frame))
    assert caught.value.hint


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_stream_cut_anywhere_near_its_end_is_refused(cut: int) -> None:
    """LZMA2 without its last byte gives all plain bytes: only the end marker tells."""
    with pytest.raises(PatchError):
        unpack(lzma_raw(text(SEGMENT))[:-cut], SEGMENT)


def test_a_bomb_is_refused_at_once() -> None:
    """C-15: 1 GiB in a frame of 156 KB costs one segment of memory and no time."""
    bomb = lzma.compress(
        bytes(1 << 30), lzma.FORMAT_RAW,
        filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}],
    )  # fmt: skip
    begin = time.process_time()
    with pytest.raises(LimitError):
        unpack(bomb, 1 << 20)
    assert time.process_time() - begin < 0.5


def test_a_dictionary_larger_than_the_segment_is_not_granted() -> None:
    """The decoder's memory follows the segment, whatever the writer used."""
    far = noise(8192)
    plain = far + bytes(200_000) + far
    options = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 24}
    packed = lzma.compress(plain, lzma.FORMAT_RAW, filters=[options])
    assert unpack(packed, len(plain)) == plain
    with pytest.raises((PatchError, LimitError)):
        unpack(packed, 20_000)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_are_decoded_exactly_or_refused(raw: bytes, length: int) -> None:
    """No input raises anything but our errors, or gives another length."""
    with suppress(PatchError, LimitError):
        assert len(unpack(raw, length)) == length


def test_the_reader_gives_the_segments_their_place() -> None:
    """Offsets in image and container are running sums, never stored (C-09)."""
    case: Case = pack("x", text(SEGMENT) + bytes(SEGMENT) + noise(5))
    head = open_head(lambda at, n: case.raw[at : at + n], case.artifact, case.container)
    first, zero, last = head.segments()
    assert (first.offset, zero.offset, last.offset) == (0, SEGMENT, 2 * SEGMENT)
    assert first.frame_offset == case.container.head_length
    assert last.frame_offset == first.frame_offset + first.frame_length
    assert not zero.framed
    assert last.frame_offset + last.frame_length == case.container.length
