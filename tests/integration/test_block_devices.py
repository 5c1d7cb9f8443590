"""Slots on real block devices: loop devices over files, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.core.errors import SlotError, SpaceError
from sealift.core.types import Slot
from tests.containers import noise, pack, text
from tests.unit.agent.memory import MemoryTransport
from tests.unit.agent.test_payload import order

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("losetup") is None,
    reason="loop devices need root and losetup (package mount)",
)

SIZE = 8 << 20


def attach(file: Path, *options: str) -> str:
    command = ["losetup", "--find", "--show", *options, str(file)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "disk"
    file.write_bytes(b"\xee" * SIZE)
    found = attach(file)
    yield found
    subprocess.run(["losetup", "--detach", found], check=True)


def test_a_block_device_has_its_own_size(device: str) -> None:
    """Its length is asked of the kernel; a stat would say zero."""
    slot = PathSlots({Slot.A: device}).open(Slot.A, writable=False)
    assert slot.size == SIZE
    assert Path(device).stat().st_size == 0
    assert len(slot.read(SIZE - 3, 100)) == 3
    slot.close()


def test_an_image_goes_onto_a_block_device(device: str, tmp_path: Path) -> None:
    """From container to medium, zeros included, and the tail behind it untouched."""
    image = text(3 << 20) + bytes(1 << 20) + noise((1 << 20) + 5)
    case = pack("image", image)
    slot = PathSlots({Slot.B: device}).open(Slot.B, writable=True)
    PayloadFill(order(case), MemoryTransport(case.raw), WorkFiles(str(tmp_path)))(
        slot, None
    )
    slot.drop_cache()
    slot.close()
    with open(device, "rb") as raw:
        assert raw.read() == image.ljust(SIZE, b"\xee")
    assert (tmp_path / "disk").read_bytes().startswith(image)


def test_the_end_of_the_device_is_the_end(device: str) -> None:
    """A write beyond it is refused whole, before the kernel is asked."""
    slot = PathSlots({Slot.B: device}).open(Slot.B, writable=True)
    with pytest.raises(SpaceError):
        slot.write(SIZE - 1, b"xy")
    assert slot.read(SIZE - 1, 1) == b"\xee"
    slot.close()


def test_d09_an_image_larger_than_the_device_is_refused(
    device: str, tmp_path: Path
) -> None:
    """Nothing is erased for an image that cannot fit."""
    case = pack("image", noise(SIZE + 1))
    slot = PathSlots({Slot.B: device}).open(Slot.B, writable=True)
    with pytest.raises(SpaceError):
        PayloadFill(order(case), MemoryTransport(case.raw), WorkFiles(str(tmp_path)))(
            slot, None
        )
    assert slot.read(0, 10) == b"\xee" * 10
    slot.close()


def test_a_device_in_use_is_not_written(device: str) -> None:
    """The kernel's exclusive open keeps us off what is mounted or held, by us or others."""
    slots = PathSlots({Slot.A: device})
    held = os.open(device, os.O_RDONLY | os.O_EXCL)
    with pytest.raises(SlotError) as caught:
        slots.open(Slot.A, writable=True)
    assert "mounted" in (caught.value.hint or "")
    slots.open(Slot.A, writable=False).close()
    os.close(held)
    slots.open(Slot.A, writable=True).close()


def test_a_read_only_device_is_a_slot_error(tmp_path: Path) -> None:
    """A device the kernel keeps read-only fails with ``device.slot``, not later."""
    file = tmp_path / "disk"
    file.write_bytes(bytes(SIZE))
    found = attach(file, "--read-only")
    try:
        with pytest.raises(SlotError):
            slot = PathSlots({Slot.A: found}).open(Slot.A, writable=True)
            slot.write(0, b"x")
    finally:
        subprocess.run(["losetup", "--detach", found], check=True)


def test_a_link_to_a_device_is_refused(device: str, tmp_path: Path) -> None:
    """D-08: the configuration names the device itself."""
    link = tmp_path / "link"
    link.symlink_to(device)
    with pytest.raises(SlotError) as caught:
        PathSlots({Slot.A: str(link)}).open(Slot.A, writable=True)
    assert "links" in (caught.value.hint or "")
