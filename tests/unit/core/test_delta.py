"""DELTA frames: what the maker meant comes back; what a thief writes is refused cheaply."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core.container import Op, Segment
from sealift.core.delta import (
    CONTROL_MAX,
    OPS_MAX,
    Base,
    Extent,
    decode_delta,
    encode_delta,
    read_control,
)
from sealift.core.errors import LimitError, PatchError, SealiftError
from sealift.core.payload import check_frame, open_frame
from sealift.core.streams import pack
from sealift.core.sums import SIZE
from tests.containers import (
    SEGMENT,
    applied,
    control_of,
    delta_frame,
    lzma_raw,
    noise,
    pack_delta,
    reader,
    taken_apart,
    text,
    understood,
)

MIB = 1 << 20
OLD = text(30_000) + noise(40_000) + bytes(20_000) + text(90_000, 3)


def base_of(raw: bytes) -> Base:
    return Base(reader(raw), len(raw))


def copy(length: int, at: int) -> Extent:
    return Extent(Op.COPY, length, at)


def added(length: int, at: int) -> Extent:
    return Extent(Op.DELTA, length, at)


def literal(length: int) -> Extent:
    return Extent(Op.REPLACE, length)


def zero(length: int) -> Extent:
    return Extent(Op.ZERO, length)


def total(extents: Sequence[Extent], *ops: Op) -> int:
    return sum(it.length for it in extents if not ops or it.op in ops)


def made(extents: Sequence[Extent], base: bytes = OLD, offset: int = 0) -> bytes:
    """What the extents make of a base, every third difference being zero."""
    difference = (noise(2000) + bytes(1000)) * (total(extents) // 3000 + 1)
    return applied(extents, base, difference, noise(total(extents, Op.REPLACE)))


# ── there and back ───────────────────────────────────────────────────────────────────
def extent(op: Op, length: int, at: int) -> Extent:
    """One that lies in the old image."""
    place = at % (len(OLD) - length) if op in {Op.COPY, Op.DELTA} else 0
    return Extent(op, length, place)


extents_of_old = st.lists(
    st.builds(
        extent, st.sampled_from(Op), st.integers(1, 300), st.integers(0, len(OLD))
    ),
    min_size=1,
    max_size=12,
)
around_a_step = st.builds(
    extent,
    st.sampled_from(Op),
    st.sampled_from([SIZE - 300, SIZE - 1, SIZE, SIZE + 1]),
    st.integers(0, len(OLD)),
)


@settings(max_examples=60, deadline=None)
@given(extents_of_old, around_a_step, st.integers(0, 2**36), st.booleans())
def test_any_ops_come_back(
    extents: list[Extent], long: Extent, offset: int, packed: bool
) -> None:
    """Whatever extents a maker finds, the decoder makes the segment they stand for."""
    extents = [*extents[:3], long, *extents[3:]]
    plain, stream = made(extents), pack if packed else bytes
    frame = encode_delta(plain, offset, extents, base_of(OLD), stream)
    assert decode_delta(frame, offset, len(plain), base_of(OLD)) == plain
    assert understood(frame, offset, len(plain), OLD) == plain


@given(extents_of_old, st.integers(0, 2**36))
def test_a_control_stream_has_one_form(extents: list[Extent], offset: int) -> None:
    """Read and written again it is the same bytes, and the same ops."""
    raw = control_of(extents, offset)
    assert list(read_control(raw, offset, total(extents))) == extents


@given(extents_of_old)
def test_a_frame_has_one_form(extents: list[Extent]) -> None:
    """Read and written again, streams packed as they were, it is the same bytes."""
    plain = made(extents)
    frame = encode_delta(plain, 7, extents, base_of(OLD), pack)
    streams, packed = taken_apart(frame)
    known = dict(zip(streams, packed, strict=True))
    again = list(read_control(streams[0], 7, len(plain)))
    assert encode_delta(plain, 7, again, base_of(OLD), known.__getitem__) == frame


# ── whole containers ─────────────────────────────────────────────────────────────────
BASES = {
    "shorter": text(100),
    "as long": text(2 * SEGMENT),
    "longer": text(3 * SEGMENT + 7, 1) + noise(900),
    "unrelated": noise(SEGMENT),
}
EDGES = [1, 2, SIZE - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT - 1, 2 * SEGMENT + 1]


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_an_image_of_any_length_comes_back(base: bytes, length: int) -> None:
    """Round trip at each segment border, whatever the base is to the image."""
    image = text(length)
    plan = [_plan(base, image, at) for at in range(0, length, SEGMENT)]
    assert pack_delta("x", base, image, plan).read() == image


def _plan(base: bytes, image: bytes, at: int) -> Op | int | list[Extent]:
    """Copied, if the base holds it; else added to it as far as it goes."""
    size = len(image[at : at + SEGMENT])
    if base[at : at + size] == image[at : at + size]:
        return at
    common = min(size, len(base) - at)
    if common < 1:
        return Op.REPLACE
    return [added(common, at), *([literal(size - common)] if size > common else [])]


edits = st.lists(
    st.tuples(
        st.sampled_from(["keep", "change", "insert", "skip", "back", "zero"]),
        st.integers(1, 3000) | st.just(SEGMENT),
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(edits)
def test_any_edit_of_an_image_comes_back(script: list[tuple[str, int]]) -> None:
    """Kept, changed, inserted, deleted and moved runs, cut at segment borders."""
    segments = _cut(_extents(script))
    image = b"".join(map(made, segments))
    assert pack_delta("x", OLD, image, segments).read() == image


def _extents(script: list[tuple[str, int]]) -> list[Extent]:
    found, at = [literal(1)], 0
    for what, length in script:
        size = min(length, len(OLD) - at)
        if what in {"keep", "change"} and size:
            found.append(Extent(Op.COPY if what == "keep" else Op.DELTA, size, at))
            at += size
        elif what in {"insert", "zero"}:
            found.append(literal(length) if what == "insert" else zero(length))
        else:
            at = min(at + length, len(OLD)) if what == "skip" else max(0, at - length)
    return found


def _cut(extents: list[Extent]) -> list[list[Extent]]:
    segments: list[list[Extent]] = [[]]
    for op, length, at in extents:
        while length:
            room = SEGMENT - total(segments[-1])
            size = min(length, room)
            segments[-1].append(Extent(op, size, at))
            length, at = length - size, at + size
            if size == room:
                segments.append([])
    return [segment for segment in segments if segment]


def test_threads_share_a_base() -> None:
    """Eight at once on one base and the same frames: each gets its own segment."""
    extents = [added(40_000, 5), literal(900), copy(24_000, 60_000), zero(600)]
    plain = made(extents)
    frame = encode_delta(plain, 0, extents, base_of(OLD), pack)
    shared = base_of(OLD)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(
            lambda _: decode_delta(frame, 0, len(plain), shared), range(64)
        )
        assert set(found) == {plain}


# ── the bounds of the base ───────────────────────────────────────────────────────────
@dataclass
class Slot:
    """A slot longer than the base in it: it remembers how far it was read."""

    raw: bytes
    seen: int = 0
    calls: list[tuple[int, int]] = field(default_factory=list)

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        self.seen = max(self.seen, offset + length)
        return self.raw[offset : offset + length]


WILD = {
    "before it": lambda length: -1,
    "at its end": lambda length: 1000,
    "one byte beyond": lambda length: 1000 - length + 1,
    "at 2^61": lambda length: 2**61,
    "at -2^61": lambda length: -(2**61),
}


@pytest.mark.parametrize("op", [Op.COPY, Op.DELTA])
@pytest.mark.parametrize("length", [1, 700, SIZE + 1])
@pytest.mark.parametrize("where", WILD.values(), ids=WILD)
def test_no_byte_outside_the_base_is_read(op: Op, length: int, where: object) -> None:
    """C-14: a slot is longer than the image in it; what lies behind stays unread."""
    assert callable(where)
    slot = Slot(noise(200_000))
    sums = bytes(length) if op is Op.DELTA else b""
    frame = delta_frame(control_of([Extent(op, length, where(length))], 0), sums)
    with pytest.raises(PatchError):
        decode_delta(frame, 0, length, Base(slot.read_at, 1000))
    assert slot.seen <= 1000


def test_a_copied_segment_stays_in_the_base() -> None:
    """The same for a COPY segment, even if its entry got past the head's parser."""
    slot = Slot(noise(3000))
    digest = sha256(slot.raw[:600]).digest()
    good = Segment(0, 0, 600, digest, Op.COPY)
    base = Base(slot.read_at, 1000)
    assert open_frame(check_frame(good, b""), base) == slot.raw[:600]
    for at in (-1, 401, 1000, 2**63 - 1):
        with pytest.raises(PatchError):
            open_frame(check_frame(replace(good, base_offset=at), b""), base)
    assert slot.seen <= 1000


def test_a_slot_shorter_than_the_base_is_noticed() -> None:
    """A base that is not whole any more is an error, not a short segment."""
    extents = [added(900, 0), copy(100, 900)]
    frame = encode_delta(OLD[:1000], 0, extents, base_of(OLD), pack)
    for left in (0, 899, 950, 999):
        with pytest.raises(PatchError):
            decode_delta(frame, 0, 1000, Base(reader(OLD[:left]), len(OLD)))


FAR = 2**36
"""Bytes of the largest base."""


def far(offset: int, length: int) -> bytes:
    """A base of 64 GiB whose every byte tells where it is."""
    return bytes((at >> 30) + (at & 7) for at in range(offset, offset + length))


@pytest.mark.parametrize("at", [2**31 - 50, 2**32 - 50, 2**35, FAR - 300])
def test_places_beyond_2_32_are_reached(at: int) -> None:
    """C-02: COPY and DELTA from the far end of 64 GiB, for a segment as far out."""
    base, offset = Base(far, FAR), 60 << 30
    extents = [copy(100, at), added(150, at + 150), copy(50, 3)]
    plain = far(at, 100) + far(at + 150, 150) + far(3, 50)
    frame = encode_delta(plain, offset, extents, base, pack)
    assert decode_delta(frame, offset, 300, base) == plain


# ── limits ───────────────────────────────────────────────────────────────────────────
def test_as_many_ops_as_allowed() -> None:
    """65 536 ops are a segment, 65 537 are not; the maker is told, too."""
    most, more = [zero(1)] * OPS_MAX, [zero(1)] * (OPS_MAX + 1)
    frame = encode_delta(bytes(OPS_MAX), 0, most, base_of(OLD), pack)
    assert decode_delta(frame, 0, OPS_MAX, base_of(OLD)) == bytes(OPS_MAX)
    frame = delta_frame(control_of(more, 0))
    with pytest.raises(LimitError):
        decode_delta(frame, 0, OPS_MAX + 1, base_of(OLD))
    with pytest.raises(LimitError):
        encode_delta(bytes(OPS_MAX + 1), 0, more, base_of(OLD), pack)


def test_as_long_a_control_stream_as_allowed() -> None:
    """262 144 bytes are read, one more is not."""
    base = noise(20_000)
    raw = control_of([copy(1, 10_000 - 10_000 * (at % 2)) for at in range(OPS_MAX)], 0)
    assert len(raw) == CONTROL_MAX
    plain = (base[10_000:10_001] + base[:1]) * (OPS_MAX // 2)
    assert decode_delta(delta_frame(raw), 0, len(plain), base_of(base)) == plain
    with pytest.raises(LimitError):
        decode_delta(delta_frame(raw + b"\x05"), 0, len(plain) + 1, base_of(base))


def test_a_maker_is_told_of_too_long_a_control_stream() -> None:
    """Few ops with far moves can be too much, too."""
    extents = [copy(1, (at % 2) << 30) for at in range(OPS_MAX - 1)]
    plain = bytes(far(at, 1)[0] for _op, _length, at in extents)
    with pytest.raises(LimitError):
        encode_delta(plain, 0, extents, Base(far, FAR), pack)


def bomb(mib: int) -> bytes:
    """A raw LZMA2 stream of so many MiB of zeros, made of one that begins anew."""
    return lzma_raw(bytes(MIB))[:-1] * mib + b"\0"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_bomb_in_any_stream_costs_no_memory(which: int) -> None:
    """C-15: 1 GiB in 160 KB is refused within the memory of an honest segment."""
    sizes = [1000, MIB // 2, MIB // 2]
    streams = [bytes(3)] * 3
    streams[which] = bomb(1024)
    control = control_of([added(MIB // 2, 0), literal(MIB // 2)], 0)
    if which:
        sizes[0], streams[0] = len(control), control
    if which == 2:
        streams[1] = lzma_raw(bytes(MIB // 2))
    sizes[which] = max(sizes[which], len(streams[which]) + 1)
    frame = delta_frame(streams[0], streams[1], streams[2], plain=sizes)
    base = base_of(bytes(MIB))
    tracemalloc.start()
    with pytest.raises((LimitError, PatchError)):
        decode_delta(frame, 0, MIB, base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MIB


def test_memory_of_the_hardest_segment() -> None:
    """A segment of 1 MiB takes at most 3.5 MiB more than itself, its frame included."""
    extents = [
        found
        for at in range(0, MIB - 64, 64)
        for found in (added(30, (at * 7) % 900_000), literal(34))
    ]
    extents.append(zero(MIB - total(extents)))
    base = noise(MIB)
    plain = made(extents, base)
    frame = encode_delta(plain, 0, extents, base_of(base), pack)
    assert MIB // 2 < len(frame) < MIB
    tracemalloc.start()
    assert decode_delta(bytes(bytearray(frame)), 0, MIB, base_of(base)) == plain
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * MIB


# ── truncation and the rest ──────────────────────────────────────────────────────────
EXTENTS = [added(500, 20), literal(60), copy(100, 900), zero(300)]
PLAIN = made(EXTENTS)
FRAME = encode_delta(PLAIN, 0, EXTENTS, base_of(OLD), lambda plain: plain)
PACKED = encode_delta(PLAIN, 0, EXTENTS, base_of(OLD), pack)


@pytest.mark.parametrize("frame", [FRAME, PACKED], ids=["stored", "packed"])
def test_every_truncation_is_refused(frame: bytes) -> None:
    """A frame that ends early is refused wherever it ends, and so is one that goes on."""
    for length in range(len(frame)):
        with pytest.raises(PatchError):
            decode_delta(frame[:length], 0, len(PLAIN), base_of(OLD))
    with pytest.raises(PatchError):
        decode_delta(frame + b"\0", 0, len(PLAIN), base_of(OLD))


@pytest.mark.parametrize("frame", [FRAME, PACKED], ids=["stored", "packed"])
def test_every_flipped_bit_is_refused_or_gives_a_whole_segment(frame: bytes) -> None:
    """Only our errors come out; what is no error has the length the digest is over."""
    for bit in range(8 * len(frame)):
        raw = bytearray(frame)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_delta(bytes(raw), 0, len(PLAIN), base_of(OLD))
        except SealiftError:
            continue
        assert len(found) == len(PLAIN)


# ── the maker ────────────────────────────────────────────────────────────────────────
WRONG: list[tuple[str, list[Extent]]] = [
    ("nothing", []),
    ("one byte short", [literal(len(PLAIN) - 1)]),
    ("one byte long", [literal(len(PLAIN) + 1)]),
    ("an op of no bytes", [literal(0), literal(len(PLAIN))]),
    ("an op of less than none", [literal(len(PLAIN) + 1), zero(-1)]),
    ("copied from elsewhere", [copy(len(PLAIN), 3)]),
    ("copied from outside", [copy(len(PLAIN), len(OLD))]),
    ("added to what is outside", [added(len(PLAIN), len(OLD) - 1)]),
    ("added to what lies before", [added(len(PLAIN), -1)]),
    ("zeros that are none", [zero(len(PLAIN))]),
]


@pytest.mark.parametrize(("what", "extents"), WRONG)
def test_wrong_extents_make_no_frame(what: str, extents: list[Extent]) -> None:
    """An engine that finds nonsense costs the delta, never a wrong one."""
    with pytest.raises(PatchError):
        encode_delta(PLAIN, 0, extents, base_of(OLD), pack)


def test_a_segment_of_no_bytes_has_no_frame() -> None:
    """There is none in an image either."""
    with pytest.raises(PatchError):
        encode_delta(b"", 0, [], base_of(OLD), pack)
