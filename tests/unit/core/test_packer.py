"""Containers, written: any image comes back, and nothing is written that is not read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core.container import Op
from sealift.core.errors import ContainerError, LengthError, LimitError, SealiftError
from sealift.core.packer import ContainerWriter, Made, make_segment, pack_full
from sealift.core.streams import pack as pack_stream
from tests.containers import Case, describe, noise, pack, text

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


def test_zeros_have_no_frame() -> None:
    """A full container holds ZERO and REPLACE, and nothing for zeros."""
    assert make_segment(bytes(SEGMENT)).op is Op.ZERO
    assert make_segment(bytes(SEGMENT)).frame == b""
    assert make_segment(bytes(SEGMENT - 1) + b"x").op is Op.REPLACE


# ── segment by segment ───────────────────────────────────────────────────────────────
BASE = text(SEGMENT + 100)
IMAGE = text(2 * SEGMENT) + b"end"


def writer(
    *, base: tuple[int, bytes] | None = (len(BASE), sha256(BASE).digest())
) -> tuple[ContainerWriter, BytesIO]:
    out = BytesIO()
    return ContainerWriter(
        len(IMAGE), SEGMENT, spool=BytesIO(), out=out, base=base
    ), out


def segments() -> list[Made]:
    """What the image above is made of."""
    first, second, last = IMAGE[:SEGMENT], IMAGE[SEGMENT : 2 * SEGMENT], IMAGE[-3:]
    return [
        Made.of(Op.COPY, first),
        Made.of(Op.REPLACE, second, pack_stream(second)),
        Made.of(Op.REPLACE, last, last),
    ]


def test_a_delta_is_told_with_its_base() -> None:
    """What metadata says of a delta is what is in the file, the base included."""
    made, out = writer()
    for segment in segments():
        made.add(segment)
    packed = made.finish(sha256(IMAGE).digest())
    raw, found = out.getvalue(), packed.container("x.delta")
    assert (found.length, found.sha256) == (len(raw), sha256(raw).digest())
    assert (found.base_length, found.base_sha256) == (len(BASE), sha256(BASE).digest())
    artifact = describe(IMAGE, packed.segment_root)
    assert Case("x", artifact, found, raw, base=BASE).read() == IMAGE


FIRST = IMAGE[:SEGMENT]
REFUSED: list[tuple[str, Made, type[SealiftError]]] = [
    ("a short segment in the middle", Made.of(Op.ZERO, bytes(9)), ContainerError),
    ("a copy from before the base", Made.of(Op.COPY, FIRST, base_offset=-1), ContainerError),
    ("a copy beyond the base", Made.of(Op.COPY, FIRST, base_offset=101), ContainerError),
    ("REPLACE without a frame", Made.of(Op.REPLACE, FIRST), ContainerError),
    ("zeros with a frame", Made.of(Op.ZERO, bytes(SEGMENT), b"x"), ContainerError),
    ("a frame larger than its segment", Made.of(Op.REPLACE, FIRST, FIRST + b"x"), LimitError),
    ("DELTA as large as its segment", Made.of(Op.DELTA, FIRST, FIRST), LimitError),
]  # fmt: skip


@pytest.mark.parametrize(("what", "made", "error"), REFUSED)
def test_no_segment_is_written_that_would_not_be_read(
    what: str, made: Made, error: type[SealiftError]
) -> None:
    """The writer refuses what the reader refuses, before anything is signed."""
    with pytest.raises(error):
        writer()[0].add(made)


def test_a_full_container_takes_nothing_from_a_base() -> None:
    """COPY and DELTA are for deltas."""
    for made in (Made.of(Op.COPY, FIRST), Made.of(Op.DELTA, FIRST, b"frame")):
        with pytest.raises(ContainerError):
            writer(base=None)[0].add(made)


def test_every_segment_and_not_one_more() -> None:
    """A container is finished with the image, neither before nor behind it."""
    made, out = writer()
    for segment in segments():
        with pytest.raises(ContainerError):
            made.finish(sha256(IMAGE).digest())
        made.add(segment)
    with pytest.raises(ContainerError):
        made.add(segments()[-1])
    assert not out.getvalue()


@pytest.mark.parametrize("length", [0, 2**36 + 1])
def test_a_base_no_container_can_name_is_refused(length: int) -> None:
    """Between one byte and 64 GiB."""
    with pytest.raises(LimitError):
        writer(base=(length, bytes(32)))
