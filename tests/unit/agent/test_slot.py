"""Slots on disk: one descriptor, no links, no growth, holes stay holes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sealift.agent.slot import OpenFile, PathSlots, WorkFiles
from sealift.core.errors import SlotError, SpaceError
from sealift.core.types import Slot

MIB = 1 << 20


@pytest.fixture
def paths(tmp_path: Path) -> dict[Slot, str]:
    found = {slot: str(tmp_path / f"slot-{slot}") for slot in Slot}
    for path in found.values():
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
    return found


def allocated(path: str) -> int:
    return Path(path).stat().st_blocks * 512


def test_what_was_written_is_read_back(paths: dict[Slot, str]) -> None:
    """Bytes come back from where they were written, and the size never changes."""
    slot = PathSlots(paths).open(Slot.B, writable=True)
    slot.write(MIB - 3, b"across a border")
    slot.flush()
    slot.drop_cache()
    assert slot.read(MIB - 3, 15) == b"across a border"
    assert slot.size == 4 * MIB == Path(paths[Slot.B]).stat().st_size
    slot.close()


def test_reading_ends_with_the_slot(paths: dict[Slot, str]) -> None:
    """Only at the end of the slot are there fewer bytes than asked for."""
    slot = PathSlots(paths).open(Slot.A, writable=False)
    assert len(slot.read(4 * MIB - 5, 100)) == 5
    assert slot.read(4 * MIB, 1) == b""
    slot.close()


@pytest.mark.parametrize("offset", [-1, 4 * MIB - 2, 4 * MIB, 1 << 62])
def test_a_write_beyond_the_slot_is_refused_whole(
    paths: dict[Slot, str], offset: int
) -> None:
    """A slot never grows, and no part of such a write lands."""
    slot = PathSlots(paths).open(Slot.B, writable=True)
    with pytest.raises(SpaceError):
        slot.write(offset, b"xyz")
    assert slot.read(4 * MIB - 2, 2) == b"\0\0"
    slot.close()


def test_zeros_over_a_hole_leave_the_hole(paths: dict[Slot, str]) -> None:
    """A sparse slot stays sparse; zeros over bytes are written."""
    slot = PathSlots(paths).open(Slot.B, writable=True)
    slot.write(0, bytes(MIB) + b"x" * 65_536 + bytes(MIB))
    slot.flush()
    assert allocated(paths[Slot.B]) <= 128 * 1024
    slot.write(MIB, bytes(65_536))
    assert slot.read(MIB, 65_536) == bytes(65_536)
    slot.close()


@pytest.mark.parametrize("length", [1, 65_535, 65_536, 65_537, 200_000])
def test_zeros_and_bytes_in_any_order_land_where_they_belong(
    paths: dict[Slot, str], length: int
) -> None:
    """Looking for holes changes no byte."""
    slot = PathSlots(paths).open(Slot.B, writable=True)
    data = (bytes(70_000) + b"abc" + bytes(65_536 * 2) + b"z")[-length:]
    slot.write(12_345, b"\xff" * length)
    slot.write(12_345, data)
    assert slot.read(12_345, length) == data
    slot.close()


# ── what is not a slot ───────────────────────────────────────────────────────────────
def test_a_missing_slot_is_an_error_and_stays_missing(tmp_path: Path) -> None:
    """No slot is ever created by opening it."""
    path = tmp_path / "none"
    with pytest.raises(SlotError) as caught:
        PathSlots({Slot.A: str(path)}).open(Slot.A, writable=True)
    assert caught.value.hint
    assert not path.exists()


def test_a_slot_nobody_configured_is_an_error() -> None:
    """D-08: paths come from local configuration only."""
    with pytest.raises(SlotError):
        PathSlots({}).open(Slot.A, writable=False)


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "device"])
def test_links_and_other_kinds_of_file_are_refused(
    tmp_path: Path, paths: dict[Slot, str], kind: str, writable: bool
) -> None:
    """C-01, D-08: a slot is a file or a block device under its own name, at once."""
    path = tmp_path / "odd"
    if kind == "link":
        path.symlink_to(paths[Slot.A])
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(SlotError):
        PathSlots({Slot.A: str(path)}).open(Slot.A, writable=writable)


def test_a_second_writer_is_refused_and_a_reader_is_not(paths: dict[Slot, str]) -> None:
    """Two agents never write one slot."""
    slots = PathSlots(paths)
    first = slots.open(Slot.B, writable=True)
    with pytest.raises(SlotError):
        slots.open(Slot.B, writable=True)
    slots.open(Slot.B, writable=False).close()
    first.close()
    slots.open(Slot.B, writable=True).close()


def test_a_swapped_file_is_not_written(paths: dict[Slot, str]) -> None:
    """C-01: after opening, the name means nothing."""
    slot = PathSlots(paths).open(Slot.B, writable=True)
    Path(paths[Slot.B]).rename(paths[Slot.B] + ".old")
    Path(paths[Slot.B]).write_bytes(bytes(MIB))
    slot.write(0, b"right")
    assert Path(paths[Slot.B]).read_bytes()[:5] == bytes(5)
    assert Path(paths[Slot.B] + ".old").read_bytes()[:5] == b"right"
    slot.close()


# ── when the medium fails ────────────────────────────────────────────────────────────
def test_a_full_disk_is_no_room() -> None:
    """ENOSPC is ``device.space``, from a real device that is always full."""
    full = OpenFile(os.open("/dev/full", os.O_RDWR), MIB, "slot b", sparse=False)
    with pytest.raises(SpaceError) as caught:
        full.write(0, b"x")
    assert caught.value.fields["errno"] == errno.ENOSPC
    full.close()


def test_a_write_that_is_refused_is_a_slot_error(paths: dict[Slot, str]) -> None:
    """A descriptor that cannot write says so with the place."""
    slot = PathSlots(paths).open(Slot.A, writable=False)
    with pytest.raises(SlotError) as caught:
        slot.write(77, b"x")
    assert caught.value.fields["offset"] == 77
    slot.close()


def test_a_slot_that_shrank_is_a_slot_error(paths: dict[Slot, str]) -> None:
    """Fewer bytes than the slot had when it was opened are no answer."""
    slot = PathSlots(paths).open(Slot.A, writable=False)
    os.truncate(paths[Slot.A], 10)
    with pytest.raises(SlotError):
        slot.read(5, 100)
    slot.close()


def test_after_closing_nothing_works_and_closing_again_is_harmless(
    paths: dict[Slot, str],
) -> None:
    """A closed slot cannot hit a descriptor that another file got since."""
    slot = PathSlots(paths).open(Slot.B, writable=True)
    slot.close()
    slot.close()
    for call in (lambda: slot.read(0, 1), lambda: slot.write(0, b"x"), slot.flush):
        with pytest.raises(SlotError):
            call()


# ── work files ───────────────────────────────────────────────────────────────────────
def test_a_work_file_is_made_private_and_kept(tmp_path: Path) -> None:
    """It survives closing, with exactly the length asked for."""
    work = WorkFiles(str(tmp_path))
    file = work.open("head", 100)
    file.write(0, b"x" * 100)
    file.close()
    assert stat.S_IMODE((tmp_path / "head").stat().st_mode) == 0o600
    again = work.open("head", 60)
    assert (again.size, again.read(0, 100)) == (60, b"x" * 60)
    again.close()
    work.remove("head")
    work.remove("head")
    assert not (tmp_path / "head").exists()


def test_a_link_is_no_work_file(tmp_path: Path) -> None:
    """C-06: nothing is written through a link somebody left in the directory."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "head").symlink_to(victim)
    with pytest.raises(SlotError):
        WorkFiles(str(tmp_path)).open("head", 3)
    assert victim.read_bytes() == b"precious"


def test_a_missing_directory_is_an_error_with_its_name(tmp_path: Path) -> None:
    """The message names the file that could not be made."""
    with pytest.raises(SlotError, match="gone"):
        WorkFiles(str(tmp_path / "gone")).open("head", 3)


def test_a_work_file_that_cannot_be_sized_or_removed_is_an_error(
    tmp_path: Path,
) -> None:
    """Larger than the file system can hold, or a directory in its place."""
    work = WorkFiles(str(tmp_path))
    with pytest.raises((SpaceError, SlotError)):
        work.open("head", 1 << 62)
    (tmp_path / "odd").mkdir()
    with pytest.raises(SlotError):
        work.remove("odd")
    with pytest.raises(SlotError):
        work.open("odd", 5)


def test_a_work_file_in_use_is_not_taken(tmp_path: Path) -> None:
    """Two installs never share scratch files."""
    work = WorkFiles(str(tmp_path))
    first = work.open("head", 10)
    with pytest.raises(SlotError):
        work.open("head", 10)
    first.close()
