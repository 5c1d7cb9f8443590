"""Patches for microcontrollers as a gateway reads them: every byte bounded."""

from __future__ import annotations

import dataclasses
import hashlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core import mcu
from sealift.core.errors import (
    DigestError,
    FormatError,
    LimitError,
    PatchError,
    PayloadError,
)
from sealift.core.extension import EcuOrder
from sealift.core.types import Instruction, Patch, PatchKind, Seal, Wrap
from sealift.repo.entries import Order, director_entries
from tests.mcu_gateway import ECU, MEMORY, NEW, OLD, SEGMENT, code, order, patch
from tests.mcu_patches import literals, op, sequential, size, tokens

KINDS = list(PatchKind)
kinds = pytest.mark.parametrize("kind", KINDS, ids=["sequential", "in place"])


def facts(raw: bytes, base: bytes = OLD, **more: Any) -> Patch:
    digests = hashlib.sha256(raw).digest(), hashlib.sha256(base).digest()
    found = Patch(
        PatchKind.SEQUENTIAL, "p", len(raw), digests[0], len(base), digests[1], 8, 7
    )
    return dataclasses.replace(found, **more)


def decoded(raw: bytes, image: int, base: bytes = OLD, **more: Any) -> bytes:
    return b"".join(mcu.decode([raw], facts(raw, base, **more), image, reader(base)))


def reader(base: bytes) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(base), "a read outside the base"
        return base[offset : offset + length]

    return read


# ── what detools makes ───────────────────────────────────────────────────────────────
@kinds
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_it_decodes_what_detools_makes(kind: PatchKind, step: int) -> None:
    """However the bytes come; the oracle is the library that made them."""
    found, raw = patch(kind)
    pieces = [raw[at : at + step] for at in range(0, len(raw), step)]
    assert b"".join(mcu.decode(pieces, found, len(NEW), reader(OLD))) == NEW
    mcu.rehearse(pieces, found, order().artifact, reader(OLD))


@kinds
@settings(max_examples=60)
@given(
    cut=st.integers(0, 1400),
    put=st.binary(max_size=600),
    at=st.integers(0, 1400),
    turn=st.integers(0, 1499),
)
def test_it_decodes_any_edit(
    kind: PatchKind, cut: int, put: bytes, at: int, turn: int
) -> None:
    """Removed, inserted and rotated bytes; in place, too, no read is refused."""
    new = OLD[turn:] + OLD[:turn]
    new = new[:at] + put + new[at + cut :] or b"\0"
    found, raw = patch(kind, OLD, new)
    assert b"".join(mcu.decode([raw], found, len(new), reader(OLD))) == new


@pytest.mark.parametrize("length", [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, MEMORY])
@kinds
def test_lengths_around_a_segment(kind: PatchKind, length: int) -> None:
    """The last segment may be short, and the flash may be filled to its end."""
    new = code(length, "new")
    found, raw = patch(kind, OLD, new)
    assert b"".join(mcu.decode([raw], found, length, reader(OLD))) == new


@kinds
def test_every_flipped_bit_is_refused_unless_it_changes_nothing(
    kind: PatchKind,
) -> None:
    """No crash, no read outside the base; equal bytes may be copied from elsewhere."""
    found, raw = patch(kind)
    refused = 0
    for at in range(8 * len(raw)):
        wrong = bytearray(raw)
        wrong[at // 8] ^= 1 << at % 8
        try:
            mcu.rehearse([bytes(wrong)], found, order().artifact, reader(OLD))
        except (PayloadError, FormatError):
            refused += 1
    assert refused > 7 * len(raw)


@kinds
def test_every_truncation_is_refused(kind: PatchKind) -> None:
    """Also the last byte, and a byte too many."""
    found, raw = patch(kind)
    for wrong in [*(raw[:at] for at in range(len(raw))), raw + b"\0", raw + b"\xff"]:
        with pytest.raises((PayloadError, FormatError)):
            mcu.rehearse([wrong], found, order().artifact, reader(OLD))


# ── what is recorded ─────────────────────────────────────────────────────────────────
IN_PLACE = Patch(
    PatchKind.IN_PLACE, "p", 9, bytes(32), 1500, bytes(32), 8, 7, 4096, 256, 256
)
BEYOND = [
    {"length": 0},
    {"length": mcu.PATCH_MAX + 1},
    {"base_length": 0},
    {"base_length": mcu.PATCH_MAX + 1},
    {"window": 3},
    {"window": 16},
    {"lookahead": 2},
    {"lookahead": 8},
    {"segment_size": 255},
    {"segment_size": (1 << 20) + 1},
    {"memory_size": 0},
    {"memory_size": mcu.PATCH_MAX + 256},
]
TOGETHER = [
    {"memory_size": 4097},
    {"shift_size": 0},
    {"shift_size": 255},
    {"shift_size": 8192},
    {"shift_size": 300},
    {"memory_size": 1280},
]


@pytest.mark.parametrize("change", BEYOND, ids=str)
def test_recorded_sizes_beyond_the_limits_are_refused(change: dict[str, int]) -> None:
    """format.limit, before a byte is fetched."""
    with pytest.raises(LimitError):
        mcu.check(dataclasses.replace(IN_PLACE, **change), 1500)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", TOGETHER, ids=str)
def test_recorded_sizes_that_contradict_each_other_are_refused(
    change: dict[str, int],
) -> None:
    """A shift that is none, a flash that is no whole number of segments or too small."""
    with pytest.raises(PatchError):
        mcu.check(dataclasses.replace(IN_PLACE, **change), 1500)  # type: ignore[arg-type]


def test_the_largest_recorded_sizes_are_admitted() -> None:
    """The limits themselves are allowed."""
    most = mcu.PATCH_MAX
    mcu.check(IN_PLACE, 4096)
    mcu.check(
        dataclasses.replace(
            IN_PLACE,
            length=most,
            base_length=most,
            window=15,
            lookahead=14,
            memory_size=most,
            segment_size=1 << 20,
            shift_size=1 << 20,
        ),
        most,
    )
    with pytest.raises(LimitError):
        mcu.check(IN_PLACE, 0)


def test_what_a_decoder_needs() -> None:
    """Memory grows with the window alone; flash is the slot, or the region."""
    assert mcu.needs(IN_PLACE, 1700) == mcu.Needs(256 + 1280, 4096)
    other = dataclasses.replace(IN_PLACE, kind=PatchKind.SEQUENTIAL, window=11)
    assert mcu.needs(other, 1700) == mcu.Needs(2048 + 1280, 1700)


# ── what came ────────────────────────────────────────────────────────────────────────
WRONG_HEADS = {
    "in place": b"\x14" + size(4) + b"\x44",
    "another compression": b"\x03" + size(4) + b"\x44",
    "another image length": b"\x04" + size(5) + b"\x44",
    "a negative length": b"\x04" + size(-4) + b"\x44",
    "another window": b"\x04" + size(4) + b"\x54",
    "another lookahead": b"\x04" + size(4) + b"\x43",
    "a padded length": b"\x04\x84\x00\x44",
    "a negative zero": b"\x04\x40\x44",
    "an endless length": b"\x04" + b"\x80" * 4000,
    "nothing": b"",
}


@pytest.mark.parametrize("head", WRONG_HEADS.values(), ids=WRONG_HEADS)
def test_a_header_that_is_not_the_recorded_one_is_refused(head: bytes) -> None:
    """Type, compression, sizes and windows have to be what the Director said."""
    raw = head + literals(size(0) + op(literal=b"abcd"))
    assert decoded(sequential(op(literal=b"abcd"), 4), 4) == b"abcd"
    with pytest.raises((PatchError, LimitError)):
        decoded(raw, 4)


@pytest.mark.parametrize("field", range(5))
def test_each_size_of_a_header_in_place_counts(field: int) -> None:
    """Flash, segment, shift, base, image: one more than recorded is refused."""
    body = literals(size(0) + op(literal=b"abcd"))
    sizes = [4096, 256, 256, 1500, 4]
    for change in (0, 1):
        said = [it + change * (at == field) for at, it in enumerate(sizes)]
        raw = b"\x14" + b"".join(map(size, said)) + b"\x44" + body
        found = dataclasses.replace(IN_PLACE, length=len(raw))
        if not change:
            assert b"".join(mcu.decode([raw], found, 4, reader(OLD))) == b"abcd"
            continue
        with pytest.raises(PatchError):
            list(mcu.decode([raw], found, 4, reader(OLD)))


WRONG_OPS = {
    "a literal too long": op(literal=b"abcde"),
    "a difference too long": op(difference=bytes(5)),
    "both together too long": op(difference=bytes(3), literal=b"ab"),
    "a negative length": size(-1) + size(4) + b"abcd" + size(0),
    "before the base": op(move=-1) + op(difference=bytes(4)),
    "behind the base": op(move=1497) + op(difference=bytes(4)),
    "far behind the base": op(move=(1 << 34) - 1) + op(difference=bytes(4)),
    "operations for nothing": op() * 7 + op(literal=b"abcd"),
    "one too few": op(literal=b"abc"),
    "one too many": op(literal=b"abcd") + op(),
}


@pytest.mark.parametrize("ops", WRONG_OPS.values(), ids=WRONG_OPS)
def test_operations_outside_image_or_base_are_refused(ops: bytes) -> None:
    """Nothing is read beyond either end, and the image is filled exactly."""
    with pytest.raises((PatchError, LimitError)):
        decoded(sequential(ops, 4), 4)


def test_operations_at_the_ends_of_the_base() -> None:
    """First and last bytes may be read, and moves may lead outside and back."""
    ops = op(b"\1\1", move=-99) + op(move=97 + 1498) + op(b"\0\0", move=-5000)
    assert decoded(sequential(ops, 4), 4) == bytes(b + 1 for b in OLD[:2]) + OLD[-2:]


def test_data_formats_are_refused() -> None:
    """An optional part of the format that nobody here writes."""
    with pytest.raises(PatchError):
        decoded(sequential(b"", 4, literals(size(1) + size(0) + b"x")), 4)


def test_C05_a_bomb_is_refused_in_constant_memory() -> None:
    """Kilobytes that inflate to many megabytes: what is taken is bounded by the image."""
    stream = tokens(*[0] * 3, *[(1, 1 << 14)] * 4000, window=15, lookahead=14)
    raw = b"\x04" + size(4) + b"\xbb" + stream
    tracemalloc.start()
    with pytest.raises((PatchError, LimitError)):
        decoded(raw, 4, window=15, lookahead=14)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_back_references_run_into_themselves_and_before_the_begin() -> None:
    """As heatshrink's own decoder: zeros come before the first byte."""
    plain = size(0) + size(0) + size(6)
    stream = tokens(*plain, (200, 2), 7, (1, 3), 0)
    assert decoded(sequential(b"", 6, stream), 6) == b"\0\0\7\7\7\7"


def test_flash_that_was_overwritten_is_not_read() -> None:
    """In place, segment k reads old bytes above itself only: one byte lower is refused."""
    found = dataclasses.replace(IN_PLACE, memory_size=2048, shift_size=512)
    for low, allowed in ((0, True), (-1, False)):
        first = size(0) + op(literal=bytes(256))
        second = size(0) + op(literal=bytes(256))
        third = size(0) + op(move=low) + op(difference=bytes(256))
        body = literals(first + second + third)
        raw = (
            b"\x14" + b"".join(map(size, (2048, 256, 512, 1500, 768))) + b"\x44" + body
        )
        pieces = mcu.decode([raw], found, 768, reader(OLD))
        if allowed:
            assert b"".join(pieces)[512:] == OLD[256:512]
            continue
        with pytest.raises(PatchError):
            list(pieces)


def test_another_image_is_a_wrong_digest() -> None:
    """A sound patch that makes something else: payload.digest."""
    found, raw = patch(PatchKind.SEQUENTIAL, OLD, code(len(NEW), "other"))
    with pytest.raises(DigestError):
        mcu.rehearse([raw], found, order().artifact, reader(OLD))


@settings(max_examples=300)
@given(body=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_any_bytes_end_in_an_error_of_ours(body: bytes, kind: PatchKind) -> None:
    """After a right header: never a crash, never a read outside the base."""
    found, raw = patch(kind)
    head = raw[: raw.index(b"\x44") + 1]
    with pytest.raises((PayloadError, FormatError)):
        mcu.rehearse([head + body], found, order().artifact, reader(OLD))


# ── as JSON ──────────────────────────────────────────────────────────────────────────
@kinds
def test_a_patch_comes_back_from_the_journal(kind: PatchKind) -> None:
    """Written and read again is the same; flash sizes only where there are some."""
    found, _ = patch(kind)
    assert Patch.from_json(found.to_json()) == found
    assert ("memory_size" in found.to_json()) is (kind is PatchKind.IN_PLACE)


@pytest.mark.parametrize("kind", ["detools-sequential-lzma", "", 1, None])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    """Nothing is guessed."""
    with pytest.raises(FormatError):
        Patch.from_json({**IN_PLACE.to_json(), "kind": kind})


def ecu(**payload: object) -> dict[str, object]:
    """A Director's entry of one ECU."""
    full = {**order().full.to_json(), "head_length": 1}
    return {"hardware_id": "radio-r1", "payload": {"full": full, **payload}}


@kinds
def test_the_directors_word_holds_a_patch(kind: PatchKind) -> None:
    """Written by the repository, read by the device; without one there is none."""
    found, _ = patch(kind)
    assert EcuOrder.from_json(ecu(mcu=found.to_json())).patch == found
    assert EcuOrder.from_json(ecu()).patch is None
    assert Instruction.from_json(order(kind).to_json()) == order(kind)
    listed = Order(ECU, "radio-r1", order().artifact, order().full, patch=found)
    ((_, entry),) = director_entries([listed]).items()
    assert entry.custom["ecus"][ECU]["payload"]["mcu"] == found.to_json()


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "x" * 241])
def test_A18_a_patch_with_a_name_that_is_a_path_is_refused(name: str) -> None:
    """As of any container."""
    with pytest.raises((PayloadError, FormatError)):
        EcuOrder.from_json(ecu(mcu={**IN_PLACE.to_json(), "name": name}))


def test_a_plain_patch_of_a_sealed_image_is_refused() -> None:
    """Its differences would show what the seal hides."""
    seal = Seal(Wrap("x25519", "ab" * 8, b"wrapped")).to_json()
    assert EcuOrder.from_json(ecu(sealed=seal)).patch is None
    with pytest.raises(FormatError):
        EcuOrder.from_json(ecu(sealed=seal, mcu=IN_PLACE.to_json()))
