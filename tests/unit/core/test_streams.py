"""Packed streams: exactly the plain bytes, or a refusal that costs next to nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core.errors import LimitError, PatchError
from sealift.core.streams import STEP, PackedStream, pack, unpack
from tests.containers import SEGMENT, filtered, lzma_raw, noise, text


@pytest.mark.parametrize(
    "length", [0, 1, 2, 4095, 4097, STEP - 1, STEP, STEP + 1, 300_000]
)
@pytest.mark.parametrize("make", [bytes, text, noise])
def test_any_length_comes_back(make: Callable[[int], bytes], length: int) -> None:
    """Round trip of bytes that compress and of bytes that do not."""
    assert unpack(pack(make(length)), length) == make(length)


def test_what_does_not_compress_is_stored() -> None:
    """A device does not spend LZMA time on bytes that gain nothing by it."""
    assert pack(noise(SEGMENT)) == noise(SEGMENT)
    almost = noise(SEGMENT - 600) + bytes(600)
    assert pack(almost) == almost
    assert len(pack(text(SEGMENT))) < SEGMENT // 20


def test_the_maker_chooses_how_hard_to_try() -> None:
    """Preset and single settings of LZMA reach the encoder; any of them decodes."""
    plain = text(SEGMENT) + noise(300) + text(SEGMENT, 4)
    quick, thorough = pack(plain, preset=0), pack(plain, preset=9, nice_len=273, lc=4)
    assert len(thorough) < len(quick)
    assert unpack(quick, len(plain)) == unpack(thorough, len(plain)) == plain


@given(st.lists(st.integers(1, 9000)), st.booleans())
def test_pieces_of_any_size_are_the_whole(sizes: list[int], stored: bool) -> None:
    """A stream may be taken in steps of any size, each exactly as asked for."""
    plain = text(sum(sizes), len(sizes))
    stream = PackedStream(plain if stored else pack(plain), len(plain))
    assert b"".join(map(stream.take, sizes)) == plain
    stream.finish()


@pytest.mark.parametrize(
    "packed", [text(5000), lzma_raw(text(5000))], ids=["stored", "LZMA2"]
)
def test_no_more_and_no_less_is_taken(packed: bytes) -> None:
    """One byte beyond the announced length, or one left over, is an error."""
    with pytest.raises(PatchError):
        PackedStream(packed, 5000).take(5001)
    stream = PackedStream(packed, 5000)
    stream.take(4999)
    with pytest.raises(PatchError):
        stream.finish()


@pytest.mark.parametrize(
    ("packed", "length"),
    [(b"xy", 1), (b"", 1), (b"x", 0), (lzma_raw(b""), 0), (lzma_raw(b"sound"), 5)],
)
def test_lengths_that_cannot_be_are_refused(packed: bytes, length: int) -> None:
    """Longer than its plain bytes, or empty for some, is no packed stream."""
    with pytest.raises(PatchError):
        unpack(packed, length)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_stream_cut_anywhere_near_its_end_is_refused(cut: int) -> None:
    """LZMA2 without its last byte gives all plain bytes: only the end marker tells."""
    with pytest.raises(PatchError):
        unpack(lzma_raw(text(SEGMENT))[:-cut], SEGMENT)


@pytest.mark.parametrize("behind", [b"\0", lzma_raw(b"more"), bytes(2 * STEP)])
def test_nothing_may_follow_the_end_marker(behind: bytes) -> None:
    """One byte, a second stream, more than is read in one step."""
    packed = lzma_raw(text(300_000))
    assert unpack(packed, 300_000) == text(300_000)
    with pytest.raises(PatchError):
        unpack(packed + behind, 300_000)


def test_nothing_may_follow_where_a_step_ends() -> None:
    """A stream as long as one step of input, so that what follows would not be read."""
    zeros = lzma_raw(bytes(200_000))[:-1]
    size = STEP - len(zeros) - 4
    stored_chunk = b"\x02" + (size - 1).to_bytes(2, "big") + noise(size)
    packed, plain = zeros + stored_chunk + b"\0", bytes(200_000) + noise(size)
    assert len(packed) == STEP
    assert unpack(packed, len(plain)) == plain
    with pytest.raises(PatchError):
        unpack(packed + b"\0", len(plain))


def test_a_bomb_is_refused_for_the_price_of_its_segment() -> None:
    """C-15: 1 GiB in a frame of 160 KB takes the memory of 1 MiB."""
    bomb = lzma_raw(bytes(1 << 20))[:-1] * 1024 + b"\0"
    tracemalloc.start()
    with pytest.raises(LimitError):
        unpack(bomb, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * (1 << 20)


def test_a_dictionary_larger_than_the_segment_is_not_granted() -> None:
    """The decoder's memory follows the segment, whatever the writer used."""
    far = noise(8192)
    plain = far + bytes(200_000) + far
    packed = filtered(plain, preset=6, dict_size=1 << 24)
    assert unpack(packed, len(plain)) == plain
    with pytest.raises((PatchError, LimitError)):
        unpack(packed, 20_000)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_are_decoded_exactly_or_refused(raw: bytes, length: int) -> None:
    """No input raises anything but our errors, or gives another length."""
    with suppress(PatchError, LimitError):
        assert len(unpack(raw, length)) == length
