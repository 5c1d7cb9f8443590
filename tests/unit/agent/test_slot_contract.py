"""What every slot promises: files, block devices, and the simulated flash alike."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent.ports import Slots
from sealift.agent.slot import PathSlots
from sealift.core.errors import SlotError, SpaceError
from sealift.core.types import Slot
from sealift.sim.flash import Door, Flash, FlashSlots

SIZE = 1 << 20
OLD = b"\xee" * SIZE


@pytest.fixture(params=["file", "loop device", "flash"])
def slots(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Slots]:
    """Slot B of 1 MiB of old content; slot A does not exist."""
    file = tmp_path / "b"
    file.write_bytes(OLD)
    missing = str(tmp_path / "a")
    if request.param == "flash":
        flash = Flash(Door())
        flash.make("slot.b", OLD)
        yield FlashSlots(flash)
    elif request.param == "file":
        yield PathSlots({Slot.A: missing, Slot.B: str(file)})
    else:
        if os.geteuid() != 0 or shutil.which("losetup") is None:
            pytest.skip("loop devices need root and losetup (package mount)")
        command = ["losetup", "--find", "--show", str(file)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        device = found.stdout.strip()
        yield PathSlots({Slot.A: missing, Slot.B: device})
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_slot_has_a_size_and_its_content(slots: Slots) -> None:
    """Size in bytes, and reading gives what is there, fewer bytes only at the end."""
    slot = slots.open(Slot.B, writable=False)
    assert slot.size == SIZE
    assert slot.read(10, 5) == b"\xee" * 5
    assert slot.read(SIZE - 3, 10) == b"\xee" * 3
    assert slot.read(SIZE, 1) == b""
    slot.close()


@pytest.mark.parametrize("data", [b"x", bytes(70_000), b"ab" * 50_000])
@pytest.mark.parametrize("offset", [0, 1, 65_535, SIZE - 100_000])
def test_what_is_written_is_read_back_from_the_medium(
    slots: Slots, offset: int, data: bytes
) -> None:
    """After flush and drop_cache, in this opening and the next; nothing beside it changes."""
    slot = slots.open(Slot.B, writable=True)
    slot.write(offset, data)
    slot.flush()
    slot.drop_cache()
    want = OLD[:offset] + data + OLD[offset + len(data) :]
    assert slot.read(0, SIZE) == want
    slot.close()
    again = slots.open(Slot.B, writable=False)
    assert again.read(0, SIZE) == want
    again.close()


@pytest.mark.parametrize("offset", [SIZE - 2, SIZE, 1 << 40])
def test_a_write_past_the_end_is_refused_whole(slots: Slots, offset: int) -> None:
    """``device.space``, and no byte of it lands."""
    slot = slots.open(Slot.B, writable=True)
    with pytest.raises(SpaceError):
        slot.write(offset, b"xyz")
    assert slot.read(SIZE - 2, 2) == b"\xee\xee"
    slot.close()


def test_what_was_opened_for_reading_is_not_written(slots: Slots) -> None:
    """The base of an install is safe from us."""
    slot = slots.open(Slot.B, writable=False)
    with pytest.raises(SlotError):
        slot.write(0, b"x")
    assert slot.read(0, 1) == b"\xee"
    slot.close()


@pytest.mark.parametrize("writable", [False, True])
def test_a_missing_slot_is_an_error(slots: Slots, writable: bool) -> None:
    """And none is made by asking."""
    for _ in range(2):
        with pytest.raises(SlotError):
            slots.open(Slot.A, writable=writable)
