"""Installing what is sealed: whole chunks come, few twice, and no plain byte stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill
from sealift.agent.payload.sealed import held
from sealift.agent.ports import Moved
from sealift.agent.slot import WorkFiles
from sealift.core.container import Op
from sealift.core.encryption import CHUNK, PREFIX, TAG
from sealift.core.errors import (
    DecryptError,
    DigestError,
    KeyUnreadableError,
    LengthError,
    RefusedError,
    SealiftError,
)
from sealift.core.types import Artifact, Instruction
from tests.containers import SEGMENT, noise, text
from tests.unit.agent.delta_pair import (
    KEY,
    NEW,
    OLD,
    Boxed,
    Pair,
    Shelf,
    empty,
    pair,
    random_bytes,
    seal,
    sealed,
)
from tests.unit.agent.memory import MemorySlot, one_byte_wrong, only_verified

PLAIN = pair()
PAIR = sealed(PLAIN)
STEP = CHUNK + TAG


class Keys:
    """Gives the content key, and notes for which orders."""

    def __init__(self, key: bytes = KEY) -> None:
        self.key = key
        self.asked: list[Instruction] = []

    def __call__(self, order: Instruction) -> bytes:
        self.asked.append(order)
        return self.key


def install(
    slot: MemorySlot,
    way: Shelf,
    work: Path,
    *,
    key: Callable[[Instruction], bytes] | None = None,
    recorded: Artifact | None = PAIR.base,
    base: bytes = OLD,
    bytes_max: int | None = None,
) -> Moved:
    assert way.pair is not None
    fill = PayloadFill(
        way.pair.order(bytes_max),
        way,
        WorkFiles(str(work)),
        base_image=recorded,
        content_key=key or Keys(),
    )
    fill(slot, MemorySlot(base))
    return fill.moved


def whole(boxed: Boxed) -> int:
    """Bytes of a sealed file without a last chunk that is empty."""
    empty_end = TAG if (len(boxed.raw) - PREFIX) % STEP == TAG else 0
    return len(boxed.raw) - empty_end


# ── what is fetched ──────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("method", ["delta", "full"])
def test_a_sealed_container_comes_once_and_fills_the_slot(
    tmp_path: Path, method: str
) -> None:
    """Prefix and head in one request, frames in another; the chunk between them once."""
    slot, way, keys = empty(), Shelf(pair=PAIR), Keys()
    recorded = PAIR.base if method == "delta" else None
    moved = install(slot, way, tmp_path, key=keys, recorded=recorded)
    boxed = PAIR.delta if method == "delta" else PAIR.full
    assert slot.durable == NEW + b"\xee" * 1000
    assert way.by_kind == {method: whole(boxed)}
    assert moved == Moved(method, whole(boxed), 0)
    assert way.ranges_of[method][0][0] == 0
    assert len(keys.asked) == 1


def test_a_repair_opens_the_full_container_with_the_same_key(tmp_path: Path) -> None:
    """Delta and full are sealed with one key, each with its own salt."""
    base = bytearray(OLD)
    base[6 * SEGMENT + 5] ^= 1
    slot, way = empty(), Shelf(pair=PAIR)
    moved = install(slot, way, tmp_path, base=bytes(base))
    assert slot.durable.startswith(NEW)
    assert (moved.method, moved.repaired) == ("delta", 1)
    frame = PLAIN.frames(PLAIN.full, [6])
    head = PLAIN.full.container.head_length
    assert way.by_kind["full"] <= PREFIX + head + frame + 4 * STEP


def test_a_range_costs_at_most_two_chunks_more(tmp_path: Path) -> None:
    """One wrong segment: whole chunks around one frame, at most 32 KiB extra."""
    slot, way = MemorySlot(NEW), Shelf(pair=PAIR)
    slot.cached[13 * SEGMENT] ^= 1
    install(slot, way, tmp_path, recorded=None)
    assert slot.durable == NEW
    frames = way.by_kind["full"] - way.ranges_of["full"][0][1]
    assert frames <= PLAIN.frames(PLAIN.full, [13]) + 2 * STEP + 5 * TAG


def test_a_broken_connection_goes_on_behind_the_last_chunk(tmp_path: Path) -> None:
    """What was opened is not fetched again but for what a broken piece held."""
    places = list(range(200_000, len(PAIR.full.raw), 150_000))
    slot, way = empty(), Shelf(pair=PAIR, broken_at=list(places))
    install(slot, way, tmp_path, recorded=None)
    assert slot.durable.startswith(NEW)
    assert len(way.asked) == 2 + len(places)


@pytest.mark.parametrize("limit", [None, 4 * 10**6])
def test_a_server_without_ranges_works(tmp_path: Path, limit: int | None) -> None:
    """Delta, repair and all: 200 is read from zero where that is paid for."""
    base = bytearray(OLD)
    base[6 * SEGMENT + 5] ^= 1
    slot, way = empty(), Shelf(pair=PAIR, ranges=False)
    moved = install(slot, way, tmp_path, base=bytes(base), bytes_max=limit)
    assert slot.durable.startswith(NEW)
    assert moved.repaired == 1
    assert moved.received == way.sent


@pytest.mark.parametrize(
    "length", [1, CHUNK - 145, SEGMENT, 3 * SEGMENT, 3 * SEGMENT + 9]
)
@pytest.mark.parametrize("made", [noise, text])
def test_any_length_of_image(
    tmp_path: Path, length: int, made: Callable[[int], bytes]
) -> None:
    """Heads and frames that end anywhere in a chunk, or with one."""
    new = made(length)
    found = sealed(pair(OLD, new, [(Op.REPLACE, 0)] * -(-length // SEGMENT)))
    slot = MemorySlot(b"\xee" * length)
    install(slot, Shelf(pair=found), tmp_path, recorded=None)
    assert slot.durable == new


# ── what stays ───────────────────────────────────────────────────────────────────────
def test_nothing_but_ciphertext_is_ever_in_the_workspace(tmp_path: Path) -> None:
    """No run of the head, of a frame or of the key, at any moment of the install."""
    secrets = [
        PLAIN.full.raw[:144],
        PLAIN.full.raw[144:176],
        PLAIN.delta.raw[144:176],
        KEY,
        NEW[:32],
        random_bytes(32, "new 4"),
    ]
    seen: set[str] = set()

    def look(_at: int, piece: bytes) -> bytes:
        for file in tmp_path.iterdir():
            seen.add(file.name)
            raw = file.read_bytes()
            assert not any(secret in raw for secret in secrets)
        return piece

    base = bytearray(OLD)
    base[6 * SEGMENT + 5] ^= 1
    install(empty(), Shelf(pair=PAIR, tamper=look), tmp_path, base=bytes(base))
    assert seen == {"payload.head", "payload.delta.head", "payload.spent"}
    look(0, b"")
    assert [file.name for file in tmp_path.iterdir()] == ["payload.spent"]


def test_a_kept_head_is_used_again(tmp_path: Path) -> None:
    """After a cut its sealed bytes are there: it is opened again, not fetched."""
    limit = whole(PAIR.delta) - 1
    with pytest.raises(RefusedError):
        install(empty(), Shelf(pair=PAIR), tmp_path, bytes_max=limit)
    slot, again = empty(), Shelf(pair=PAIR)
    install(slot, again, tmp_path)
    assert slot.durable.startswith(NEW)
    assert all(start >= PREFIX for start, _ in again.ranges_of["delta"])


def test_a_budget_of_exactly_the_sealed_container_is_enough(tmp_path: Path) -> None:
    """The estimate counts chunks as they are fetched."""
    slot = empty()
    install(slot, Shelf(pair=PAIR), tmp_path, bytes_max=whole(PAIR.delta))
    assert slot.durable.startswith(NEW)


# ── keys ─────────────────────────────────────────────────────────────────────────────
def test_without_a_key_nothing_is_fetched(tmp_path: Path) -> None:
    """A device that was provisioned without one says so."""
    way = Shelf(pair=PAIR)
    fill = PayloadFill(PAIR.order(), way, WorkFiles(str(tmp_path)))
    with pytest.raises(KeyUnreadableError):
        fill(empty(), None)
    assert way.asked == []


def test_a_wrap_that_does_not_open_ends_it_before_any_byte(tmp_path: Path) -> None:
    """Wrapped for another device: payload.decrypt, no request."""

    def fails(_order: Instruction) -> bytes:
        raise DecryptError("wrapped for another key")

    way = Shelf(pair=PAIR)
    with pytest.raises(DecryptError):
        install(empty(), way, tmp_path, key=fails)
    assert way.asked == []


def test_another_key_fails_at_the_commitment(tmp_path: Path) -> None:
    """The head is fetched twice, and nothing is written."""
    slot, way = empty(), Shelf(pair=PAIR)
    with pytest.raises(DecryptError):
        install(slot, way, tmp_path, key=Keys(bytes(32)))
    assert slot.writes == []
    assert len(way.asked) == 2


def test_a_container_sealed_for_another_image_is_refused(tmp_path: Path) -> None:
    """Same key, other context: a ciphertext cannot be labelled anew."""
    other = replace(PAIR.artifact, sha256=bytes(32))
    full = seal(PLAIN.full, other, b"f")
    slot, way = empty(), Shelf(pair=replace(PAIR, full=full))
    with pytest.raises(DecryptError):
        install(slot, way, tmp_path, recorded=None)
    assert slot.writes == []


def test_the_content_key_is_overwritten_after_use() -> None:
    """Also when the install fails; what Python copied elsewhere is beyond us."""
    with pytest.raises(DigestError), held(KEY) as key:
        assert key == KEY
        raise DigestError("a lie")
    assert key == bytes(32)


# ── lies ─────────────────────────────────────────────────────────────────────────────
PLACES = {
    "salt": 3,
    "commitment": 30,
    "head": 60,
    "a chunk": 300_000,
    "a tag": PREFIX + 20 * STEP - 1,
    "the last byte": len(PAIR.full.raw) - 1,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_wrong_byte_once_is_fetched_again(tmp_path: Path, place: int) -> None:
    """The network may have done it."""
    slot, way = empty(), Shelf(pair=PAIR, tamper=one_byte_wrong(place, 1))
    install(slot, way, tmp_path, recorded=None)
    assert slot.durable.startswith(NEW)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_wrong_byte_twice_is_payload_decrypt(tmp_path: Path, place: int) -> None:
    """It stops; the slot holds verified or untouched segments, nothing of a bad chunk."""
    slot, way = empty(), Shelf(pair=PAIR, tamper=one_byte_wrong(place, 2))
    with pytest.raises(DecryptError):
        install(slot, way, tmp_path, recorded=None)
    only_verified(slot, NEW)


def chunks(raw: bytes) -> list[bytes]:
    return [raw[at : at + STEP] for at in range(PREFIX, len(raw), STEP)]


def rearranged(change: Callable[[list[bytes]], object]) -> bytes:
    parts = chunks(PAIR.full.raw)
    change(parts)
    return (PAIR.full.raw[:PREFIX] + b"".join(parts))[: len(PAIR.full.raw)].ljust(
        len(PAIR.full.raw), b"\0"
    )


def _swap(parts: list[bytes]) -> None:
    parts[8], parts[9] = parts[9], parts[8]


CHANGES: dict[str, Callable[[list[bytes]], object]] = {
    "swapped": _swap,
    "dropped": lambda parts: parts.pop(8),
    "doubled": lambda parts: parts.insert(8, parts[8]),
    "of the delta": lambda parts: parts.__setitem__(0, chunks(PAIR.delta.raw)[0]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_chunks_in_wrong_places_do_not_open(
    tmp_path: Path, change: Callable[[list[bytes]], object]
) -> None:
    """Each chunk has its own nonce, each file its own key."""
    found = replace(PAIR, full=Boxed(PAIR.full.container, rearranged(change)))
    slot = empty()
    with pytest.raises(DecryptError):
        install(slot, Shelf(pair=found), tmp_path, recorded=None)
    only_verified(slot, NEW)


@pytest.mark.parametrize("cut", [1, TAG, STEP, STEP + 1])
def test_a_file_that_ends_early_does_not_open(tmp_path: Path, cut: int) -> None:
    """Whatever is missing at its end, it is missed."""
    found = replace(PAIR, full=Boxed(PAIR.full.container, PAIR.full.raw[:-cut]))
    with pytest.raises((DecryptError, LengthError)):
        install(empty(), Shelf(pair=found), tmp_path, recorded=None)


def test_a_forged_chunk_by_a_key_holder_is_payload_digest(tmp_path: Path) -> None:
    """Every device of the release has the key; the seal is secrecy, not authenticity."""
    raw = bytearray(PLAIN.full.raw)
    raw[-70_000] ^= 1
    forged = seal(replace(PLAIN.full, raw=bytes(raw)), PAIR.artifact, b"f")
    found = replace(PAIR, full=Boxed(PAIR.full.container, forged.raw))
    slot = empty()
    with pytest.raises(DigestError):
        install(slot, Shelf(pair=found), tmp_path, recorded=None)
    only_verified(slot, NEW)


def test_an_impossible_length_is_refused_before_any_byte(tmp_path: Path) -> None:
    """No sealed file ends within a tag: known from what was signed."""
    length = PREFIX + STEP + TAG - 1
    container = replace(PAIR.full.container, length=length)
    way = Shelf(pair=replace(PAIR, full=Boxed(container, b"")))
    with pytest.raises(LengthError):
        install(empty(), way, tmp_path, recorded=None)
    assert way.asked == []


def test_an_impossible_delta_falls_back_to_the_full_container(tmp_path: Path) -> None:
    """C-14, sealed: a delta that cannot be one is not used."""
    container = replace(PAIR.delta.container, length=PREFIX + 3)
    slot, way = empty(), Shelf(pair=replace(PAIR, delta=Boxed(container, b"")))
    assert install(slot, way, tmp_path).method == "full"
    assert slot.durable.startswith(NEW)


def small() -> tuple[Pair, bytes]:
    """A sealed pair with few bytes."""
    new = text(300)
    return sealed(pair(OLD, new, [(Op.REPLACE, 0)])), new


def test_a_flipped_bit_anywhere_in_a_small_sealed_container(tmp_path: Path) -> None:
    """For good: some error, and nothing in the slot."""
    found, new = small()
    raw = found.full.raw
    for place in range(0, len(raw), 3):
        bad = bytearray(raw)
        bad[place] ^= 1 << place % 8
        slot = MemorySlot(b"\xee" * len(new))
        way = Shelf(pair=replace(found, full=Boxed(found.full.container, bytes(bad))))
        with pytest.raises(SealiftError):
            install(slot, way, tmp_path, recorded=None)
        assert slot.durable == b"\xee" * len(new)
