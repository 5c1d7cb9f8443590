"""Filling a slot: only verified bytes, no byte twice, through cuts and lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill, clear, moved
from sealift.agent.ports import Moved, Progress
from sealift.agent.slot import WorkFiles
from sealift.core.errors import (
    DigestError,
    FailedTransferError,
    LengthError,
    RefusedError,
    SealiftError,
    SlotError,
    SpaceError,
    UnsafeNameError,
)
from sealift.core.types import Instruction
from tests.containers import SEGMENT, Case, noise, pack, text
from tests.unit.agent.memory import (
    PIECE,
    CutError,
    CutSlot,
    Doors,
    MemorySlot,
    MemoryTransport,
    one_byte_wrong,
    only_verified,
)
from tests.vectors.payload.generate import stored

# Stored frames, LZMA2 frames, zeros, and a short segment at the end.
IMAGE = (
    text(3 * SEGMENT)
    + bytes(2 * SEGMENT)
    + noise(2 * SEGMENT)
    + text(SEGMENT, 5)
    + bytes(SEGMENT)
    + noise(6 * SEGMENT)
    + text(777)
)
CASE = pack("image", IMAGE)


def order(case: Case, bytes_max: int | None = None) -> Instruction:
    return Instruction(
        ecu_id="dev-0001-main",
        hardware_id="demo-board-r1",
        artifact=case.artifact,
        full=case.container,
        delta=None,
        bytes_max=bytes_max,
        director_version=1,
        targets_sha256=bytes(32),
    )


def fill(
    slot: MemorySlot,
    way: MemoryTransport,
    work: Path,
    *,
    case: Case = CASE,
    bytes_max: int | None = None,
) -> None:
    PayloadFill(order(case, bytes_max), way, WorkFiles(str(work)))(slot, None)


def empty(extra: int = 1000) -> MemorySlot:
    return MemorySlot(b"\xee" * (len(IMAGE) + extra))


def head_and(*segments: int) -> int:
    """Bytes of the head and of the frames of these segments."""
    from sealift.core.container import open_head

    head = open_head(lambda at, n: CASE.raw[at : at + n], CASE.artifact, CASE.container)
    frames = [found.frame_length for found in head.segments()]
    return CASE.container.head_length + sum(frames[index] for index in segments)


# ── what is fetched, what is written ─────────────────────────────────────────────────
def test_an_image_fills_the_slot_and_nothing_behind_it(tmp_path: Path) -> None:
    """The image is there and durable, the rest of the slot untouched, each byte sent once."""
    slot, way = empty(), MemoryTransport(CASE.raw)
    fill(slot, way, tmp_path)
    assert slot.durable == IMAGE + b"\xee" * 1000
    assert way.sent == CASE.container.length
    assert way.paths[0] == f"director/targets/{CASE.container.sha256.hex()}.x.full"
    assert len(way.asked) == 2


def test_what_is_right_already_is_neither_fetched_nor_written(tmp_path: Path) -> None:
    """A slot that holds the image costs the head and not one write (flash wear)."""
    slot, way = MemorySlot(IMAGE), MemoryTransport(CASE.raw)
    fill(slot, way, tmp_path)
    assert way.sent == CASE.container.head_length
    assert slot.writes == []


def test_one_wrong_segment_costs_one_frame(tmp_path: Path) -> None:
    """Whatever wrote the others, only the wrong one is fetched."""
    slot, way = MemorySlot(IMAGE), MemoryTransport(CASE.raw)
    slot.cached[10 * SEGMENT] ^= 1
    fill(slot, way, tmp_path)
    assert slot.durable == IMAGE
    assert way.sent == head_and(10)
    assert slot.writes == [(10 * SEGMENT, SEGMENT)]


def test_small_gaps_are_read_through_and_large_ones_asked_around(
    tmp_path: Path,
) -> None:
    """Up to 256 KiB nobody wants are cheaper than another request."""
    slot, way = MemorySlot(IMAGE), MemoryTransport(CASE.raw)
    for index in (0, 7, 9, 15):
        slot.cached[index * SEGMENT] ^= 1
    fill(slot, way, tmp_path)
    assert slot.durable == IMAGE
    assert len(way.asked) == 1 + 2
    assert head_and(0, 7, 9, 15) < way.sent < CASE.container.length - 4 * SEGMENT


def test_zeros_need_no_network(tmp_path: Path) -> None:
    """ZERO segments are written from nothing."""
    slot, way = MemorySlot(IMAGE), MemoryTransport(CASE.raw)
    slot.cached[3 * SEGMENT : 5 * SEGMENT] = b"x" * 2 * SEGMENT
    fill(slot, way, tmp_path)
    assert slot.durable == IMAGE
    assert way.sent == CASE.container.head_length


def test_a_delta_that_is_offered_is_not_used(tmp_path: Path) -> None:
    """This version takes the full container and says so by doing it."""
    delta = replace(
        CASE.container, name="x.delta", base_length=5, base_sha256=bytes(32)
    )
    wanted = replace(order(CASE), delta=delta)
    slot, way = empty(), MemoryTransport(CASE.raw)
    PayloadFill(wanted, way, WorkFiles(str(tmp_path)))(slot, MemorySlot(b"old"))
    assert slot.durable.startswith(IMAGE)
    assert all(path.endswith(".full") for path in way.paths)


def test_nothing_is_left_in_the_workspace(tmp_path: Path) -> None:
    """After an install only the ledger is there, for the report, and then nothing."""
    fill(empty(), MemoryTransport(CASE.raw), tmp_path, bytes_max=10**9)
    assert [it.name for it in tmp_path.iterdir()] == ["payload.spent"]
    work = WorkFiles(str(tmp_path))
    assert moved(work, order(CASE)) == Moved("full", CASE.container.length, 0)
    clear(work)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_what_there_is_to_do(tmp_path: Path) -> None:
    """First the look, then the install, each up to its end."""
    seen: dict[str, tuple[int, int]] = {}
    progress = Progress(lambda step, done, total: seen.update({step: (done, total)}))
    slot = MemorySlot(IMAGE)
    slot.cached[0] ^= 1
    work = WorkFiles(str(tmp_path))
    PayloadFill(order(CASE), MemoryTransport(CASE.raw), work, progress=progress)(
        slot, None
    )
    assert seen == {"check": (len(IMAGE), len(IMAGE)), "install": (SEGMENT, SEGMENT)}


@pytest.mark.parametrize("decoders", [1, 2, 5])
def test_any_number_of_decoders_gives_the_same_slot(
    tmp_path: Path, decoders: int
) -> None:
    """Threads change the time, not one byte."""
    slot = empty()
    work = WorkFiles(str(tmp_path))
    PayloadFill(order(CASE), MemoryTransport(CASE.raw), work, decoders=decoders)(
        slot, None
    )
    assert slot.durable.startswith(IMAGE)


# ── cuts ─────────────────────────────────────────────────────────────────────────────
def cut_install(work: Path, cut: int) -> tuple[CutSlot, MemoryTransport, Doors, bool]:
    doors = Doors(cut)
    slot = CutSlot(b"\xee" * len(IMAGE))
    slot.doors = doors

    def tamper(_at: int, piece: bytes) -> bytes:
        doors.step()
        return piece

    way = MemoryTransport(CASE.raw, tamper=tamper)
    try:
        fill(slot, way, work)
    except CutError:
        slot.lose_power()
        return slot, way, doors, True
    return slot, way, doors, False


def test_a_cut_anywhere_costs_at_most_one_segment_of_network(tmp_path: Path) -> None:
    """Every write, flush and piece: power gone, unflushed bytes lost, then it finishes.

    The head is kept, and no more than one segment size of frames is fetched again,
    beside the piece of the stream that was in memory.
    """
    cut, most = 0, 0
    while True:
        cut += 1
        work = tmp_path / str(cut)
        work.mkdir()
        slot, way, _doors, was_cut = cut_install(work, cut)
        if not was_cut:
            break
        slot.doors = Doors(0)
        again = MemoryTransport(CASE.raw)
        fill(slot, again, work)
        assert slot.durable == IMAGE
        most = max(most, way.sent + again.sent - CASE.container.length)
    assert cut > 100
    assert most <= SEGMENT + PIECE


def test_a_kept_head_is_verified_again(tmp_path: Path) -> None:
    """A head file that rotted or was forged between two starts is fetched anew."""
    for junk in (b"", b"junk", bytes(len(CASE.raw)), CASE.raw[:100]):
        (tmp_path / "payload.head").touch(mode=0o600)
        (tmp_path / "payload.head").write_bytes(junk)
        slot, way = empty(), MemoryTransport(CASE.raw)
        fill(slot, way, tmp_path)
        assert slot.durable.startswith(IMAGE)


def test_a_broken_connection_is_replaced_while_it_gets_on(tmp_path: Path) -> None:
    """Each connection that brings a good frame earns another one."""
    places = list(range(200_000, CASE.container.length, 150_000))
    slot, way = empty(), MemoryTransport(CASE.raw, broken_at=places)
    fill(slot, way, tmp_path)
    assert slot.durable.startswith(IMAGE)
    assert len(way.asked) == 2 + len(places)


def test_without_progress_a_broken_connection_is_an_error(tmp_path: Path) -> None:
    """And everything that came before is verified, written and flushed."""
    frames = CASE.container.head_length
    at = CASE.container.length - 50_000
    slot = empty()
    way = MemoryTransport(CASE.raw, broken_at=[at])
    real = way.stream

    def stream(path: str, **kwargs: int) -> Iterator[bytes]:
        way.broken_at = [at]
        return real(path, **kwargs)

    way.stream = stream  # type: ignore[method-assign]
    with pytest.raises(FailedTransferError):
        fill(slot, way, tmp_path)
    again = MemoryTransport(CASE.raw)
    fill(slot, again, tmp_path)
    assert slot.durable.startswith(IMAGE)
    assert again.sent <= 2 * SEGMENT
    assert min(start for start, _ in again.asked) > frames


# ── lies ─────────────────────────────────────────────────────────────────────────────
PLACES = [0, 20, 150, CASE.container.head_length - 1, CASE.container.head_length,
          CASE.container.head_length + 70_000, CASE.container.length - 1]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a19_a_wrong_byte_once_is_fetched_again(tmp_path: Path, place: int) -> None:
    """The network may have done it: once more, and all is well."""
    slot, way = empty(), MemoryTransport(CASE.raw, tamper=one_byte_wrong(place, 1))
    fill(slot, way, tmp_path)
    assert slot.durable.startswith(IMAGE)


@pytest.mark.parametrize("place", PLACES)
def test_a19_a_wrong_byte_twice_is_a_liar(tmp_path: Path, place: int) -> None:
    """The second time it stops, and the slot holds verified or untouched segments only."""
    slot, way = empty(), MemoryTransport(CASE.raw, tamper=one_byte_wrong(place, 2))
    with pytest.raises(DigestError):
        fill(slot, way, tmp_path)
    only_verified(slot, IMAGE)


@pytest.mark.parametrize(
    "case", [case for case in stored() if not case.base], ids=lambda case: case.name
)
def test_hostile_containers_are_refused_with_their_code(
    case: Case, tmp_path: Path
) -> None:
    """C-05, C-08, C-09, C-14, C-15 through the agent: never a wrong byte in the slot."""
    slot = MemorySlot(b"\xee" * case.artifact.length)
    way = MemoryTransport(case.raw)
    code = None
    try:
        fill(slot, way, tmp_path, case=case)
    except SealiftError as error:
        code = error.code
    assert code == case.error
    if code is None:
        assert sha256(slot.durable).digest() == case.artifact.sha256


def test_a16_never_more_than_the_signed_length(tmp_path: Path) -> None:
    """W5: of a container with bytes behind its end, the signed ones are asked for."""
    way = MemoryTransport(CASE.raw + b"more" * 100_000)
    fill(empty(), way, tmp_path)
    assert way.sent == CASE.container.length
    assert max(stop for _, stop in way.asked) == CASE.container.length


def test_a_stream_that_ends_early_is_a_wrong_length(tmp_path: Path) -> None:
    """A transport that gives less than it promised is not waited for."""
    way = MemoryTransport(CASE.raw[:100_000])
    with pytest.raises(LengthError):
        fill(empty(), way, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\nb", "a\0b", "-x", "x" * 201,
     "a b", "ü", ".hidden", "a%2fb"],
)  # fmt: skip
def test_c06_an_unsafe_name_is_refused(tmp_path: Path, name: str) -> None:
    """A container's name is a plain file name; nothing is asked for under another."""
    case = replace(CASE, container=replace(CASE.container, name=name))
    way = MemoryTransport(CASE.raw)
    with pytest.raises(UnsafeNameError):
        fill(empty(), way, tmp_path, case=case)
    assert way.asked == []


# ── this device ──────────────────────────────────────────────────────────────────────
def test_d09_a_small_slot_is_refused_untouched(tmp_path: Path) -> None:
    """One byte too few: nothing is fetched, nothing written."""
    slot, way = MemorySlot(b"\xee" * (len(IMAGE) - 1)), MemoryTransport(CASE.raw)
    with pytest.raises(SpaceError):
        fill(slot, way, tmp_path)
    assert (slot.writes, way.asked) == ([], [])


def test_a_slot_that_fails_midway_is_an_error_and_no_thread_hangs(
    tmp_path: Path,
) -> None:
    """EIO ends the install with the slot's own error."""

    class Bad(MemorySlot):
        def write(self, offset: int, data: bytes) -> None:
            if offset >= 6 * SEGMENT:
                raise SlotError("bad block")
            super().write(offset, data)

    with pytest.raises(SlotError, match="bad block"):
        fill(Bad(b"\xee" * len(IMAGE)), MemoryTransport(CASE.raw), tmp_path)


def test_a_block_that_cannot_be_read_is_written(tmp_path: Path) -> None:
    """A bad block in the old content is no reason not to write the new one."""

    class Worn(MemorySlot):
        def read(self, offset: int, length: int) -> bytes:
            if offset == 2 * SEGMENT and not any(at == offset for at, _ in self.writes):
                raise SlotError("unreadable")
            return super().read(offset, length)

    slot = Worn(IMAGE)
    fill(slot, MemoryTransport(CASE.raw), tmp_path)
    assert slot.writes == [(2 * SEGMENT, SEGMENT)]


# ── budget ───────────────────────────────────────────────────────────────────────────
def test_a_budget_that_cannot_do_is_refused_before_the_first_write(
    tmp_path: Path,
) -> None:
    """``deferred(budget)`` with its figures, never silent, nothing erased."""
    slot, way = empty(), MemoryTransport(CASE.raw)
    with pytest.raises(RefusedError) as caught:
        fill(slot, way, tmp_path, bytes_max=CASE.container.length - 1)
    fields = caught.value.fields
    assert fields["reason"] == "budget"
    assert fields["spent"] == CASE.container.head_length == way.sent
    assert fields["needed"] == CASE.container.length - CASE.container.head_length
    assert slot.writes == []


def test_a_budget_of_exactly_the_container_is_enough(tmp_path: Path) -> None:
    """The estimate is exact."""
    slot, way = empty(), MemoryTransport(CASE.raw)
    fill(slot, way, tmp_path, bytes_max=CASE.container.length)
    assert slot.durable.startswith(IMAGE)


def test_what_is_there_already_costs_no_budget(tmp_path: Path) -> None:
    """Only what is wrong has to be paid."""
    slot, way = MemorySlot(IMAGE), MemoryTransport(CASE.raw)
    slot.cached[0] ^= 1
    fill(slot, way, tmp_path, bytes_max=head_and(0))
    assert slot.durable == IMAGE


def test_a_budget_counts_over_restarts_and_retries(tmp_path: Path) -> None:
    """Bytes spent before a cut, or on a wrong frame, stay spent."""
    place = CASE.container.length - 1
    slot, way = empty(), MemoryTransport(CASE.raw, tamper=one_byte_wrong(place, 1))
    with pytest.raises(RefusedError):
        fill(slot, way, tmp_path, bytes_max=CASE.container.length)
    assert way.sent <= CASE.container.length
    again = MemoryTransport(CASE.raw)
    with pytest.raises(RefusedError):
        fill(slot, again, tmp_path, bytes_max=CASE.container.length)
    assert way.sent + again.sent <= CASE.container.length
    fill(slot, again, tmp_path, bytes_max=CASE.container.length + 2000)
    assert slot.durable.startswith(IMAGE)


@pytest.mark.parametrize("spare", [0, CASE.container.head_length])
def test_a_server_without_ranges_works_within_the_budget(
    tmp_path: Path, spare: int
) -> None:
    """Bytes received only to be dropped are bytes on the wire."""
    slot, way = empty(), MemoryTransport(CASE.raw, ranges=False)
    if spare:
        fill(slot, way, tmp_path, bytes_max=CASE.container.length + spare)
        assert slot.durable.startswith(IMAGE)
        assert way.sent == CASE.container.length + spare
    else:
        with pytest.raises(RefusedError):
            fill(slot, way, tmp_path, bytes_max=CASE.container.length)


def test_the_devices_own_limit_holds_too(tmp_path: Path) -> None:
    """The smaller of both limits counts."""
    slot, way = empty(), MemoryTransport(CASE.raw)
    work = WorkFiles(str(tmp_path))
    with pytest.raises(RefusedError):
        PayloadFill(order(CASE, 10**9), way, work, bytes_max=1000)(slot, None)


def test_another_install_begins_with_a_fresh_budget(tmp_path: Path) -> None:
    """What one release cost is not held against the next."""
    other = pack("other", text(2 * SEGMENT, 9))
    with pytest.raises(RefusedError):
        fill(
            empty(),
            MemoryTransport(CASE.raw),
            tmp_path,
            bytes_max=CASE.container.head_length,
        )
    slot = empty()
    limit = other.container.length
    fill(slot, MemoryTransport(other.raw), tmp_path, case=other, bytes_max=limit)
    assert slot.durable.startswith(text(2 * SEGMENT, 9))
