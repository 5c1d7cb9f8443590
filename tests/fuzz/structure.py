"""A sound delta container, changed in its fields, ops and streams, and signed again.

Random bytes hardly ever get past a digest. These changes are made before lengths and
digests are told, as a thief of the online keys would, so that they reach the decoder;
the digests of the image and its segments stay the vendor's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from sealift.core.container import Header, Kind, Op, Segment
from sealift.core.delta import Extent
from sealift.core.streams import pack as pack_stream
from sealift.core.varints import varint
from tests.containers import (
    SEGMENT,
    Case,
    applied,
    control_of,
    filtered,
    lzma_raw,
    noise,
    pack_delta,
    parts,
    rebuilt,
    signed,
    text,
)
from tests.fuzz.choices import Choices

OPS = (Op.COPY, Op.ZERO, Op.DELTA, Op.REPLACE)


@dataclass(frozen=True)
class Sketch:
    """What a DELTA frame is made of, and the segment it is for."""

    index: int
    extents: tuple[Extent, ...]
    difference: bytes
    literal: bytes


@dataclass
class Seed:
    """A sound delta container, and the sketches of its DELTA frames."""

    case: Case
    sketches: tuple[Sketch, ...]

    @cached_property
    def parts(self) -> tuple[Header, list[Segment], list[bytes]]:
        """Header, segments and frames; not to be changed."""
        return parts(self.case)


def _drawn(choices: Choices) -> tuple[Seed, Sketch, Header, list[Segment], list[bytes]]:
    """A seed, mostly the small one, which is quicker to read; its parts."""
    small, large = seeds()
    seed = large if choices.below(8) == 7 else small
    header, segments, frames = seed.parts
    return seed, choices.pick(seed.sketches), header, [*segments], [*frames]


@cache
def seeds() -> tuple[Seed, ...]:
    """One of 900 bytes, and one of four segments that has every kind of them."""
    return _small(), _large()


def _small() -> Seed:
    base = text(500) + noise(500)
    extents = (
        Extent(Op.DELTA, 200, 10),
        Extent(Op.REPLACE, 50),
        Extent(Op.COPY, 300, 600),
        Extent(Op.ZERO, 100),
        Extent(Op.DELTA, 250, 0),
    )
    sketch = Sketch(0, extents, bytes(range(45)) * 10, text(50, 7))
    image = applied(extents, base, sketch.difference, sketch.literal)
    return Seed(pack_delta("small", base, image, [extents]), (sketch,))


def _large() -> Seed:
    base = text(SEGMENT) + noise(SEGMENT) + text(SEGMENT, 5)
    first = Sketch(
        0,
        (
            Extent(Op.DELTA, 40_000, 7),
            Extent(Op.REPLACE, 300),
            *(Extent(Op.DELTA, 60, 50_000 + 61 * at) for at in range(100)),
            Extent(Op.COPY, 1000, 100_000),
            Extent(Op.ZERO, SEGMENT - 47_300),
        ),
        (bytes(99) + b"\x04") * 460,
        noise(300),
    )
    last = Sketch(3, (Extent(Op.DELTA, 500, 3 * SEGMENT - 500),), bytes(500), b"")
    made = [
        applied(it.extents, base, it.difference, it.literal) for it in (first, last)
    ]
    image = made[0] + base[SEGMENT - 9 : 2 * SEGMENT - 9] + bytes(SEGMENT) + made[1]
    plan: list[Op | int | Sequence[Extent]] = [
        first.extents,
        SEGMENT - 9,
        Op.ZERO,
        last.extents,
    ]
    return Seed(pack_delta("large", base, image, plan), (first, last))


def hostile(data: bytes) -> Case:
    """The container that ``data`` makes of a seed, told and signed as it is."""
    choices = Choices(data)
    seed, sketch, header, segments, frames = _drawn(choices)
    frames[sketch.index] = _frame(choices, sketch, segments[sketch.index].offset)
    if choices.below(6) == 5:
        _change_entry(choices, segments, frames)
    if choices.below(12) == 11:
        header = _other_header(choices, header)
    made = rebuilt(seed.case, header, segments, frames)
    if choices.below(12) == 11:
        length = made.container.head_length
        made = signed(made, choices.edited(made.raw[:length]), made.raw[length:])
    return made


def equivalent(data: bytes) -> Case:
    """The same image by other ops and packers: whatever ``data`` says, it is sound."""
    choices = Choices(data)
    seed, sketch, header, segments, frames = _drawn(choices)
    for _ in range(choices.below(8)):
        sketch = _rewritten(choices, sketch, seed.case.base)
    offset = segments[sketch.index].offset
    plain = [control_of(sketch.extents, offset), sketch.difference, sketch.literal]
    packed = [choices.pick(SOUND_PACKERS)(it) for it in plain]
    frames[sketch.index] = _written(_numbers(plain, packed), packed)
    return rebuilt(seed.case, header, segments, frames)


# ── frames ───────────────────────────────────────────────────────────────────────────
def _frame(choices: Choices, sketch: Sketch, offset: int) -> bytes:
    """A frame with zero to some changes at each stage of its making."""
    extents = list(sketch.extents)
    for _ in range(choices.below(4)):
        _change_ops(choices, extents)
    plain = [control_of(extents, offset), sketch.difference, sketch.literal]
    if choices.below(4) == 3:
        _change(choices, plain)
    packed = [choices.pick(PACKERS)(it) for it in plain]
    if choices.below(6) == 5:
        _change(choices, packed)
    numbers = _numbers(plain, packed)
    if choices.below(6) == 5:
        numbers[choices.below(6)] = choices.number()
    frame = _written(numbers, packed)
    return choices.edited(frame) if choices.below(8) == 7 else frame


def _change(choices: Choices, streams: list[bytes]) -> None:
    which = choices.below(len(streams))
    streams[which] = choices.edited(streams[which])


def _change_ops(choices: Choices, extents: list[Extent]) -> None:
    at = choices.below(len(extents))
    op, length, source = extents[at]
    match choices.below(7):
        case 0:
            extents[at] = Extent(choices.pick(OPS), length, source)
        case 1:
            extents[at] = Extent(op, choices.number() & (1 << 60) - 1, source)
        case 2:
            extents[at] = Extent(op, length, choices.number() - choices.number())
        case 3:
            extents.insert(at, extents[choices.below(len(extents))])
        case 4:
            other = choices.below(len(extents))
            extents[at], extents[other] = extents[other], extents[at]
        case 5:
            shift = choices.below(3) - 1
            extents[at] = Extent(op, max(0, length + shift), source)
        case _:
            extents[at:] = extents[at + 1 :] or extents[:1]


def _numbers(plain: list[bytes], packed: list[bytes]) -> list[int]:
    pairs = zip(plain, packed, strict=True)
    return [len(stream) for pair in pairs for stream in pair]


def _written(numbers: list[int], packed: list[bytes]) -> bytes:
    return b"".join(map(varint, numbers)) + b"".join(packed)


def _fitting(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """That packer where it makes a stream shorter; else the bytes are stored."""

    def fitted(plain: bytes) -> bytes:
        packed = pack(plain)
        return packed if plain and len(packed) < len(plain) else plain

    return fitted


SOUND_PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    pack_stream,
    bytes,
    _fitting(lzma_raw),
    _fitting(lambda plain: filtered(plain, preset=0, dict_size=max(4096, len(plain)))),
    _fitting(lambda plain: filtered(plain, preset=1, lc=0, lp=2, pb=0)),
)
PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    *SOUND_PACKERS,
    pack_stream,
    lzma_raw,
    lambda plain: lzma_raw(plain) * 2,
    lambda plain: lzma_raw(plain)[:-1],
    lambda plain: lzma_raw(plain + b"\0"),
    lambda plain: lzma_raw(plain[:-1]),
    lambda plain: filtered(plain + bytes(1 << 18), preset=0),
    lambda plain: plain + b"\0",
)


# ── the same in other words ──────────────────────────────────────────────────────────
def _rewritten(choices: Choices, sketch: Sketch, base: bytes) -> Sketch:
    """One op split in two, or replaced by another that gives the same bytes."""
    at = choices.below(len(sketch.extents))
    op, length, source = sketch.extents[at]
    before, after = sketch.extents[:at], sketch.extents[at + 1 :]
    if choices.below(2) and length > 1:
        cut = 1 + choices.below(length - 1)
        moved = source + cut if op in {Op.COPY, Op.DELTA} else 0
        split = (Extent(op, cut, source), Extent(op, length - cut, moved))
        return replace(sketch, extents=before + split + after)
    differences = sum(it.length for it in before if it.op is Op.DELTA)
    literals = sum(it.length for it in before if it.op is Op.REPLACE)
    head, tail = sketch.difference[:differences], sketch.difference[differences:]
    if op is Op.COPY:
        same = Extent(Op.DELTA, length, source)
        return replace(
            sketch,
            extents=(*before, same, *after),
            difference=head + bytes(length) + tail,
        )
    added = tail[:length] if op is Op.DELTA else b""
    if op in {Op.DELTA, Op.ZERO}:
        plain = applied([Extent(op, length, source)], base, added, b"")
        return replace(
            sketch,
            extents=(*before, Extent(Op.REPLACE, length), *after),
            difference=head + tail[len(added) :],
            literal=sketch.literal[:literals] + plain + sketch.literal[literals:],
        )
    return sketch


# ── the head ─────────────────────────────────────────────────────────────────────────
def _change_entry(
    choices: Choices, segments: list[Segment], frames: list[bytes]
) -> None:
    at, other = choices.below(len(segments)), choices.below(len(segments))
    match choices.below(4):
        case 0:
            op = choices.pick(OPS)
            segments[at] = replace(segments[at], op=op)
            frames[at] = frames[at] if segments[at].framed else b""
        case 1:
            place = (choices.number() - choices.number()) % (1 << 60)
            segments[at] = replace(segments[at], op=Op.COPY, base_offset=place)
            frames[at] = b""
        case 2:
            frames[at], frames[other] = frames[other], frames[at]
        case _:
            frames[at] = b""


def _other_header(choices: Choices, header: Header) -> Header:
    number = choices.number() & (1 << 63) - 1
    match choices.below(6):
        case 0:
            return replace(header, kind=choices.pick(tuple(Kind)))
        case 1:
            return replace(header, segment_size=1 << choices.below(64))
        case 2:
            return replace(header, image_length=number)
        case 3:
            return replace(header, base_length=number)
        case 4:
            return replace(header, count=number & 0xFFFFFFFF)
        case _:
            return replace(header, base_sha256=choices.raw(32))
