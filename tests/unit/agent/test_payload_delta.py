"""Installing by a delta: from the recorded base only, healed where the base is wrong."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill
from sealift.agent.ports import Moved
from sealift.agent.slot import WorkFiles
from sealift.core.container import Op
from sealift.core.delta import Base, Extent, encode_delta
from sealift.core.errors import (
    DigestError,
    FailedTransferError,
    RefusedError,
    SealiftError,
    SlotError,
)
from sealift.core.streams import pack
from sealift.core.types import Artifact, Container
from tests.containers import SEGMENT, Case
from tests.unit.agent.delta_pair import (
    KINDS,
    NEW,
    OLD,
    Boxed,
    Pair,
    Shelf,
    edited,
    empty,
    pair,
    random_bytes,
)
from tests.unit.agent.memory import MemorySlot, only_verified
from tests.vectors.payload.generate import stored

PAIR = pair()
ALL = range(len(KINDS))
TAIL = b"\xdd" * 5000
"""What lies in the base slot behind the base."""


class BaseSlot(MemorySlot):
    """A base that notes what is read of it, and must never be written."""

    def __init__(self, data: bytes = OLD + TAIL) -> None:
        super().__init__(data)
        self.last = 0

    def read(self, offset: int, length: int) -> bytes:
        self.last = max(self.last, offset + length)
        return super().read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        raise AssertionError("the base is never written")


def install(
    slot: MemorySlot,
    way: Shelf,
    work: Path,
    base: MemorySlot | None = None,
    *,
    recorded: Artifact | None = PAIR.base,
    bytes_max: int | None = None,
    decoders: int = 1,
) -> Moved:
    """One try; what it says it did."""
    assert way.pair is not None
    fill = PayloadFill(
        way.pair.order(bytes_max),
        way,
        WorkFiles(str(work)),
        base_image=recorded,
        decoders=decoders,
    )
    fill(slot, BaseSlot() if base is None else base)
    return fill.moved


def shelf(found: Pair = PAIR) -> Shelf:
    return Shelf(pair=found)


# ── method ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("decoders", [1, 3])
def test_the_delta_of_the_recorded_base_is_used(tmp_path: Path, decoders: int) -> None:
    """Each of its bytes once, none of the full container; the slot behind is untouched."""
    slot, way, base = empty(), shelf(), BaseSlot()
    moved = install(slot, way, tmp_path, base, decoders=decoders)
    assert slot.durable == NEW + b"\xee" * 1000
    assert way.by_kind == {"delta": PAIR.delta.container.length}
    assert moved == Moved("delta", PAIR.delta.container.length, 0)
    assert base.durable == OLD + TAIL


def test_the_tail_of_a_longer_base_slot_is_not_read(tmp_path: Path) -> None:
    """The slot is longer than the signed base; not one byte behind it is asked for."""
    base = BaseSlot()
    install(empty(), shelf(), tmp_path, base)
    assert base.last == len(OLD)


OTHERS = [
    None,
    replace(PAIR.base, sha256=bytes(32)),
    replace(PAIR.base, length=len(OLD) + 1),
]


@pytest.mark.parametrize("recorded", OTHERS, ids=["unknown", "digest", "length"])
def test_another_recorded_base_takes_the_full_container(
    tmp_path: Path, recorded: Artifact | None
) -> None:
    """What lies in the slot does not count, what is recorded does: known before a byte."""
    slot, way = empty(), shelf()
    moved = install(slot, way, tmp_path, recorded=recorded)
    assert slot.durable.startswith(NEW)
    assert moved == Moved("full", PAIR.full.container.length, 0)
    assert "delta" not in way.by_kind


def test_a_base_slot_that_is_too_short_takes_the_full_container(tmp_path: Path) -> None:
    """A slot that cannot hold the base does not hold it."""
    way = shelf()
    install(empty(), way, tmp_path, BaseSlot(OLD[:-1]))
    assert "delta" not in way.by_kind


def test_full_where_it_does_not_fit_the_budget_is_deferred(tmp_path: Path) -> None:
    """No delta for what runs, and too few bytes for the rest: said, nothing written."""
    slot = empty()
    with pytest.raises(RefusedError) as caught:
        install(
            slot, shelf(), tmp_path, recorded=None,
            bytes_max=PAIR.full.container.length - 1,
        )  # fmt: skip
    assert caught.value.fields["reason"] == "budget"
    assert slot.writes == []


def test_a_budget_of_exactly_the_delta_is_enough(tmp_path: Path) -> None:
    """The cost of a delta is known before its first frame."""
    slot = empty()
    install(slot, shelf(), tmp_path, bytes_max=PAIR.delta.container.length)
    assert slot.durable.startswith(NEW)


def test_one_byte_less_than_the_delta_is_deferred(tmp_path: Path) -> None:
    """Before the first frame is fetched or a byte is written."""
    slot, way = empty(), shelf()
    with pytest.raises(RefusedError):
        install(slot, way, tmp_path, bytes_max=PAIR.delta.container.length - 1)
    assert slot.writes == []
    assert way.by_kind == {"delta": PAIR.delta.container.head_length}


def test_what_is_right_already_costs_the_head(tmp_path: Path) -> None:
    """A flip back to a filled slot: method none, no frame, not one write."""
    slot, way = MemorySlot(NEW), shelf()
    moved = install(slot, way, tmp_path)
    assert moved == Moved("none", PAIR.delta.container.head_length, 0)
    assert slot.writes == []


def test_right_segments_are_not_written_again(tmp_path: Path) -> None:
    """Whatever wrote them: one wrong segment is one frame and one write (flash wear)."""
    slot, way = MemorySlot(NEW), shelf()
    slot.cached[6 * SEGMENT] ^= 1
    install(slot, way, tmp_path)
    assert slot.durable == NEW
    assert slot.writes == [(6 * SEGMENT, SEGMENT)]
    head = PAIR.delta.container.head_length
    assert way.by_kind == {"delta": head + PAIR.frames(PAIR.delta, [6])}


# ── repair ───────────────────────────────────────────────────────────────────────────
def touched(*blocks: int) -> bytes:
    """The base with 4 KiB blocks changed, as by a writable mount."""
    out = bytearray(OLD + TAIL)
    for block in blocks:
        out[block * 4096 : block * 4096 + 8] = b"mounted!"
    return bytes(out)


def feeds(*blocks: int) -> list[int]:
    """Which segments of the new image need these blocks of the base."""
    found = []
    for index, (kind, start) in enumerate(KINDS):
        stop = start + min(SEGMENT, len(NEW) - index * SEGMENT)
        if kind in (Op.COPY, Op.DELTA) and any(
            start < block * 4096 + 8 and block * 4096 < stop for block in blocks
        ):
            found.append(index)
    return found


@pytest.mark.parametrize("blocks", [(3,), (81,), (81, 97, 113), (130, 260)], ids=str)
def test_a_changed_base_costs_the_segments_it_feeds(
    tmp_path: Path, blocks: tuple[int, ...]
) -> None:
    """The delta, once; the full head, once; the frames of the wrong segments, joined."""
    slot, way, bad = empty(), shelf(), feeds(*blocks)
    assert bad
    moved = install(slot, way, tmp_path, BaseSlot(touched(*blocks)))
    assert slot.durable.startswith(NEW)
    assert way.by_kind["delta"] == PAIR.delta.container.length
    repair = PAIR.full.container.head_length + PAIR.frames(PAIR.full, bad)
    assert repair <= way.by_kind["full"] <= repair + 4 * SEGMENT * len(bad)
    assert moved == Moved("delta", sum(way.by_kind.values()), len(bad))


def test_neighbours_are_repaired_by_one_request(tmp_path: Path) -> None:
    """One range for the head, one for three segments side by side."""
    way = shelf()
    install(empty(), way, tmp_path, BaseSlot(touched(81, 97, 113)))
    assert len(way.ranges_of["full"]) == 2
    repair = PAIR.full.container.head_length + PAIR.frames(PAIR.full, [5, 6, 7])
    assert way.by_kind["full"] == repair


def test_a_base_that_changes_while_it_is_read_is_healed(tmp_path: Path) -> None:
    """The running system writes into its own slot in the middle of the install."""

    class Living(BaseSlot):
        def read(self, offset: int, length: int) -> bytes:
            found = super().read(offset, length)
            return edited(found, 9) if 6 * SEGMENT <= offset < 7 * SEGMENT else found

    slot, way = empty(), shelf()
    moved = install(slot, way, tmp_path, Living())
    assert slot.durable.startswith(NEW)
    assert moved.repaired == 1


def test_a_bad_block_in_the_base_is_healed(tmp_path: Path) -> None:
    """What cannot be read is not the base."""

    class Worn(BaseSlot):
        def read(self, offset: int, length: int) -> bytes:
            if offset <= 8 * SEGMENT < offset + length:
                raise SlotError("bad block")
            return super().read(offset, length)

    slot, way = empty(), shelf()
    assert install(slot, way, tmp_path, Worn()).repaired == len(feeds(128))
    assert slot.durable.startswith(NEW)


def test_a_repair_that_comes_out_wrong_is_a_liar(tmp_path: Path) -> None:
    """REPLACE has no base to blame: payload.digest, and nothing wrong in the slot."""
    lying = bytearray(PAIR.full.raw)
    found = next(it for it in PAIR.head(PAIR.full).segments() if it.index == 6)
    lying[found.frame_offset] ^= 1
    liar = replace(PAIR, full=Boxed(PAIR.full.container, bytes(lying)))
    slot = empty()
    with pytest.raises(DigestError):
        install(slot, shelf(liar), tmp_path, BaseSlot(touched(97)))
    only_verified(slot, NEW)


def test_a_repair_beyond_the_budget_is_deferred(tmp_path: Path) -> None:
    """What the delta made stays; with more bytes only the repair is fetched."""
    slot, way = empty(), shelf()
    base = BaseSlot(touched(97))
    with pytest.raises(RefusedError) as caught:
        install(slot, way, tmp_path, base, bytes_max=PAIR.delta.container.length)
    assert caught.value.fields["reason"] == "budget"
    assert way.by_kind == {"delta": PAIR.delta.container.length}
    again = shelf()
    moved = install(slot, again, tmp_path, base, bytes_max=10**9)
    assert slot.durable.startswith(NEW)
    repair = PAIR.full.container.head_length + PAIR.frames(PAIR.full, [6])
    assert again.by_kind == {"full": repair}
    assert moved == Moved("delta", PAIR.delta.container.length + repair, 1)


def test_a_habitually_written_base_goes_on_with_the_full_container(
    tmp_path: Path,
) -> None:
    """When repairs make the delta dearer, the rest of it is not fetched any more."""
    count = 32
    old = b"".join(random_bytes(SEGMENT, f"o {i}") for i in range(count))
    new = b"".join(
        random_bytes(SEGMENT // 2, f"n {i}")
        + old[i * SEGMENT + SEGMENT // 2 : (i + 1) * SEGMENT]
        for i in range(count)
    )
    found = pair(old, new, [(Op.DELTA, i * SEGMENT) for i in range(count)])
    base = BaseSlot(random_bytes(len(old), "written all over"))
    slot, way = MemorySlot(b"\xee" * len(new)), shelf(found)
    moved = install(slot, way, tmp_path, base, recorded=found.base)
    assert slot.durable == new
    assert moved.method == "full"
    assert way.by_kind["full"] == found.full.container.length
    assert way.by_kind["delta"] < found.delta.container.length
    assert 0 < moved.repaired < count


# ── C-14: a delta that is badly made ─────────────────────────────────────────────────
def hostile(index: int, frame: bytes, found: Pair = PAIR) -> Pair:
    """A stolen Director signs a delta with this frame for one segment."""
    from sealift.core.container import encode_head

    boxed = found.delta
    head = found.head(boxed)
    segments, frames = [], b""
    for it in head.segments():
        raw = boxed.raw[it.frame_offset : it.frame_offset + it.frame_length]
        if it.index == index:
            raw = frame
            it = replace(it, op=Op.DELTA, frame_length=len(raw), frame_sha256=_sha(raw))
        segments.append(it)
        frames += raw
    header = replace(head.header, frames_length=len(frames))
    length = len(encode_head(header, segments))
    raw_head = encode_head(replace(header, head_length=length), segments)
    container = replace(
        boxed.container,
        length=len(raw_head) + len(frames),
        sha256=_sha(raw_head + frames),
        head_length=length,
        head_sha256=_sha(raw_head),
    )
    return replace(found, delta=Boxed(container, raw_head + frames))


def _sha(raw: bytes) -> bytes:
    return sha256(raw).digest()


@pytest.mark.parametrize(
    "frame",
    [b"\0" * 20, b"\xff" * 200, random_bytes(3000, "junk"), b"\x05\x05\0\0\0\0" + b"\xff" * 5],
    ids=["nothing", "overlong", "noise", "beyond"],
)  # fmt: skip
def test_c14_a_malformed_frame_is_healed_from_the_full_container(
    tmp_path: Path, frame: bytes
) -> None:
    """Its digest is the signed one, so the network is not to blame: base untouched."""
    slot, way, base = empty(), shelf(hostile(7, frame)), BaseSlot()
    moved = install(slot, way, tmp_path, base)
    assert slot.durable.startswith(NEW)
    assert (moved.method, moved.repaired) == ("delta", 1)
    assert base.durable == OLD + TAIL


def test_c14_a_frame_that_reaches_behind_the_base_is_healed(tmp_path: Path) -> None:
    """It would make the right bytes of what lies in the slot behind the signed base."""
    plain = TAIL[:4096] + random_bytes(SEGMENT - 4096, "rest")
    new = NEW[: 4 * SEGMENT] + plain + NEW[5 * SEGMENT :]
    slot_of_base = OLD + TAIL
    lax = Base(lambda at, n: slot_of_base[at : at + n], len(slot_of_base))
    extents = [
        Extent(Op.COPY, 4096, len(OLD)),
        Extent(Op.REPLACE, SEGMENT - 4096),
    ]
    frame = encode_delta(plain, 4 * SEGMENT, extents, lax, pack)
    found = hostile(4, frame, pair(OLD, new))
    slot, base = empty(), BaseSlot()
    moved = install(slot, shelf(found), tmp_path, base)
    assert slot.durable.startswith(new)
    assert moved.repaired == 1
    assert base.last == len(OLD)


def test_c14_a_delta_for_another_result_is_healed(tmp_path: Path) -> None:
    """A well-formed frame that makes something else: the offline root does not have it."""
    other = next(it for it in PAIR.head(PAIR.delta).segments() if it.index == 8)
    raw = PAIR.delta.raw[other.frame_offset : other.frame_offset + other.frame_length]
    slot = empty()
    moved = install(slot, shelf(hostile(7, raw)), tmp_path)
    assert slot.durable.startswith(NEW)
    assert moved.repaired == 1


HEADS = [(0, b"SEALPAX"), (12, b"\xff\xff\xff\xff"), (16, b"\xff" * 8), (8, b"\0"),
         (136, b"\xff\xff\xff\xff"), (144, b"x")]  # fmt: skip


@pytest.mark.parametrize(("at", "junk"), HEADS, ids=[str(at) for at, _ in HEADS])
def test_c14_a_malformed_head_falls_back_to_the_full_container(
    tmp_path: Path, at: int, junk: bytes
) -> None:
    """Signed by a stolen Director, and no head of this image: the delta is not used."""
    length = PAIR.delta.container.head_length
    raw = bytearray(PAIR.delta.raw)
    raw[at : at + len(junk)] = junk
    container = replace(PAIR.delta.container, head_sha256=_sha(bytes(raw[:length])))
    slot = empty()
    way = shelf(replace(PAIR, delta=Boxed(container, bytes(raw))))
    moved = install(slot, way, tmp_path)
    assert slot.durable.startswith(NEW)
    assert way.by_kind == {"delta": length, "full": PAIR.full.container.length}
    assert moved == Moved("full", sum(way.by_kind.values()), 0)


@pytest.mark.parametrize("length", [1, 2**40])
def test_c14_an_impossible_head_length_costs_nothing(
    tmp_path: Path, length: int
) -> None:
    """No work file of a terabyte, no request: it goes by the full container."""
    container = replace(PAIR.delta.container, head_length=length)
    way = shelf(replace(PAIR, delta=Boxed(container, b"")))
    slot = empty()
    install(slot, way, tmp_path)
    assert slot.durable.startswith(NEW)
    assert "delta" not in way.by_kind


def test_a_wrong_frame_on_the_way_is_fetched_once_more_then_it_stops(
    tmp_path: Path,
) -> None:
    """Not the signed bytes: that is the network or a liar, never a matter of the base."""
    slot = empty()
    bad = Boxed(PAIR.delta.container, PAIR.delta.raw[:-1] + b"!")
    way = shelf(replace(PAIR, delta=bad))
    with pytest.raises(DigestError):
        install(slot, way, tmp_path)
    assert "full" not in way.by_kind
    only_verified(slot, NEW)


# ── resume ───────────────────────────────────────────────────────────────────────────
def cut_at(
    kind: str, place: int, slot: MemorySlot, work: Path, base: MemorySlot
) -> Shelf:
    """An install whose network ends for good at a place of one container."""
    way = shelf()
    real = way.stream

    def stream(path: str, **span: int):  # type: ignore[no-untyped-def]
        got = span["start"]
        for piece in real(path, **span):
            if f".{kind}" in path and got + len(piece) > place:
                raise FailedTransferError("gone", retry_after=60)
            got += len(piece)
            yield piece

    way.stream = stream  # type: ignore[method-assign]
    recorded = PAIR.base if kind == "delta" else None
    with pytest.raises(FailedTransferError):
        install(slot, way, work, base, recorded=recorded)
    slot.lose_power()
    return way


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_full_then_delta_then_full_midway(tmp_path: Path, share: float) -> None:
    """What one method wrote the next does not fetch again."""
    slot, base = empty(), BaseSlot()
    first = cut_at("full", int(share / 2 * len(PAIR.full.raw)), slot, tmp_path, base)
    second = cut_at("delta", int(share * len(PAIR.delta.raw)), slot, tmp_path, base)
    third = shelf()
    install(slot, third, tmp_path, base, recorded=None)
    assert slot.durable.startswith(NEW)
    full = first.by_kind["full"] + third.by_kind["full"]
    assert full <= PAIR.full.container.length + SEGMENT + 10_000
    assert second.by_kind["delta"] <= PAIR.delta.container.length


def test_a_repair_that_was_cut_does_not_fetch_the_delta_again(tmp_path: Path) -> None:
    """Which segments it does not make is remembered."""
    slot, base = empty(), BaseSlot(touched(97))
    with pytest.raises(RefusedError):
        install(slot, shelf(), tmp_path, base, bytes_max=PAIR.delta.container.length)
    slot.lose_power()
    again = shelf()
    install(slot, again, tmp_path, base)
    assert "delta" not in again.by_kind


LEDGERS = [b"", b"junk", b"\xff" * 84, bytes(84), b"\xff" * 100_000]


@pytest.mark.parametrize(
    "junk", LEDGERS, ids=["empty", "junk", "ones", "zeros", "long"]
)
@pytest.mark.parametrize(
    "name", ["payload.spent", "payload.head", "payload.delta.head"]
)
def test_forged_work_files_are_harmless(tmp_path: Path, name: str, junk: bytes) -> None:
    """They may cost time and bytes, never the image."""
    (tmp_path / name).write_bytes(junk)
    (tmp_path / name).chmod(0o600)  # what is open to others is not even read
    slot = empty()
    install(slot, shelf(), tmp_path, bytes_max=2 * 10**6)
    assert slot.durable.startswith(NEW)


def test_a_ledger_that_calls_all_segments_bad_costs_the_full_container(
    tmp_path: Path,
) -> None:
    """Its key is no secret; whoever writes it chooses the method, not the image."""
    base = BaseSlot(touched(97))
    with pytest.raises(RefusedError):
        install(empty(), shelf(), tmp_path, base, bytes_max=PAIR.delta.container.length)
    ledger = tmp_path / "payload.spent"
    raw = ledger.read_bytes()
    ledger.write_bytes(raw[:-3] + b"\xff" * 3)
    slot, way = empty(), shelf()
    moved = install(slot, way, tmp_path, base)
    assert slot.durable.startswith(NEW)
    assert way.by_kind == {"full": PAIR.full.container.length}
    assert moved.repaired >= len(KINDS)


def test_another_delta_forgets_what_the_first_did_not_make(tmp_path: Path) -> None:
    """A new offer is judged by itself; bytes spent stay spent."""
    base = BaseSlot(touched(97))
    length = PAIR.delta.container.length
    with pytest.raises(RefusedError):
        install(empty(), shelf(), tmp_path, base, bytes_max=length)
    slot, way = empty(), shelf(hostile(8, b"\0" * 30))
    moved = install(slot, way, tmp_path)
    assert slot.durable.startswith(NEW)
    assert moved == Moved("delta", length + sum(way.by_kind.values()), 1)


@pytest.mark.parametrize(
    "case", [case for case in stored() if case.base], ids=lambda case: case.name
)
def test_c14_every_stored_delta_through_the_agent(case: Case, tmp_path: Path) -> None:
    """A sound one makes its image. Of a hostile one the full container is asked for,
    which nobody has here; or it is refused as what a liar sends.
    """
    count = -(-case.artifact.length // case.artifact.segment_size)
    head = 144 + 33 * count
    full = Boxed(Container("x.full", head, bytes(32), head, bytes(32)), b"")
    boxed = Boxed(replace(case.container, name="x.delta"), case.raw)
    recorded = replace(
        case.artifact,
        length=case.container.base_length,
        sha256=case.container.base_sha256 or b"",
    )
    way = shelf(Pair(recorded, case.artifact, full, boxed))
    slot = MemorySlot(b"\xee" * case.artifact.length)
    base = BaseSlot(case.base.ljust(case.container.base_length, b"\0"))
    code = None
    try:
        install(slot, way, tmp_path, base, recorded=recorded)
    except SealiftError as error:
        code = error.code
    if case.error is None:
        assert sha256(slot.durable).digest() == case.artifact.sha256
        assert (code, list(way.ranges_of)) == (None, ["delta"])
    else:
        assert code == "payload.digest" or "full" in way.ranges_of
