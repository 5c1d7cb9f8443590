"""What only the native A/B installer does; the rest is in the installer's contract."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.file import FileBoot
from sealift.agent.install.ab import AbInstaller
from sealift.core.errors import BootError, SlotError
from sealift.core.types import Slot
from sealift.sim.device import NEW, OLD, Device, Kind
from sealift.sim.flash import FlashSlots

if TYPE_CHECKING:
    from sealift.agent.ports import BootState, SlotDevice
    from sealift.core.types import Artifact, Instruction

IMAGE = NEW[Kind.GOOD]


def fill(into: SlotDevice, base: SlotDevice | None, /) -> None:
    into.write(0, IMAGE.content)
    into.flush()


def order(sha512: bytes) -> Instruction:
    found = IMAGE.order()
    return dataclasses.replace(
        found, artifact=dataclasses.replace(found.artifact, sha512=sha512)
    )


@pytest.fixture
def device() -> Device:
    found = Device()
    found._start()
    return found


def test_P4_every_listed_digest_is_compared(device: Device) -> None:
    """A right SHA-256 with a wrong SHA-512 is no image; both right is one."""
    installer = device.make_components()[0].installer
    right = hashlib.sha512(IMAGE.content).digest()
    installer.stage(order(right), Slot.B, fill)
    installer.arm(order(right), Slot.B)
    for verb in (installer.arm, lambda it, slot: installer.stage(it, slot, fill)):
        with pytest.raises(SlotError):
            verb(order(bytes(64)), Slot.B)


def test_a_slot_that_shrank_is_not_armed(device: Device) -> None:
    """It ends before the image does: device.slot, not an endless read."""
    installer = device.make_components()[0].installer
    installer.stage(IMAGE.order(), Slot.B, fill)
    device.flash.make("slot.b", IMAGE.content[:20])
    with pytest.raises(SlotError):
        installer.arm(IMAGE.order(), Slot.B)


def test_the_running_slot_is_recognised_by_every_byte(device: Device) -> None:
    """The image it holds, and no other; more than the slot holds is no image of it."""
    installer = device.make_installer(FileBoot(device.store(), device.started))
    old = OLD.artifact
    assert installer.recognised(old) is old
    assert installer.recognised(IMAGE.artifact) is None
    assert installer.recognised(dataclasses.replace(old, length=1 << 40)) is None
    assert installer.recognised(dataclasses.replace(old, sha512=bytes(64))) is None
    device.flash.make("slot.a", OLD.content[:-1] + b"!")
    assert installer.recognised(old) is None


def test_a_slot_on_trial_is_not_recognised(device: Device) -> None:
    """What runs on trial is not what the factory confirmed, whatever it holds."""
    boot = FileBoot(device.store(), device.started)
    boot.set_next(Slot.B, 1)
    device.running = Slot.B
    with pytest.raises(BootError):
        device.make_installer(boot).recognised(OLD.artifact)


class Stubborn(FileBoot):
    """A loader that takes the order and would start home all the same."""

    def next(self) -> Slot:
        return Slot.A


def test_a_loader_that_would_not_start_it_is_not_believed(device: Device) -> None:
    """set_next returned, but next says home: device.boot, and no restart for nothing."""
    boot = Stubborn(device.store(), device.started)
    installer = AbInstaller(boot, FlashSlots(device.flash), device.clock.boot_id)
    installer.stage(IMAGE.order(), Slot.B, fill)
    with pytest.raises(BootError):
        installer.arm(IMAGE.order(), Slot.B)


class Partition:
    """A place for boot files that tells what it was asked, and may refuse."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked
        self.refuses = ""

    def accept(self, _image: Artifact) -> None:
        self._note("accept")

    def place(self, slot: Slot, image: Artifact, source: SlotDevice) -> None:
        assert source.read(0, image.length) == IMAGE.content
        self._note(f"place {slot}")

    def check(self, slot: Slot, _image: Artifact) -> None:
        self._note(f"check {slot}")

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if what == self.refuses:
            raise BootError(f"no: {what}")


class Telling(FileBoot):
    """A loader that tells of what changes it, in the same list."""

    asked: list[str]

    def mark_writing(self, slot: Slot) -> None:
        self.asked.append(f"mark {slot}")
        super().mark_writing(slot)

    def set_next(self, slot: Slot, tries: int) -> None:
        self.asked.append(f"arm {slot}")
        super().set_next(slot, tries)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def partition(asked: list[str]) -> Partition:
    return Partition(asked)


@pytest.fixture
def installer(device: Device, partition: Partition) -> AbInstaller:
    boot = Telling(device.store(), device.started)
    boot.asked = asked = partition.asked
    return AbInstaller(
        boot,
        FlashSlots(device.flash),
        device.clock.boot_id,
        files=partition,
        belongs=lambda _image, _slot: asked.append("belongs"),
    )


def test_D23_a_loader_that_lacks_something_gets_no_byte(device: Device) -> None:
    """Seen before anything is fetched or written, not when the slot is armed."""

    class Lacking(FileBoot):
        def state(self) -> BootState:
            return dataclasses.replace(super().state(), missing=("no altbootcmd",))

    def never(*_: object) -> None:
        raise AssertionError("it was fetched")

    installer = device.make_installer(Lacking(device.store(), device.started))
    before = device.flash.fingerprint()
    with pytest.raises(BootError, match="no altbootcmd"):
        installer.stage(IMAGE.order(), Slot.B, never)
    assert device.flash.fingerprint() == before


def test_a_boot_file_is_placed_last_and_looked_at_before_arming(
    installer: AbInstaller, asked: list[str]
) -> None:
    """Accepted before anything is written, placed when the slot was read back."""
    installer.stage(IMAGE.order(), Slot.B, fill)
    assert asked == ["accept", "mark b", "belongs", "place b"]
    installer.arm(IMAGE.order(), Slot.B)
    assert asked[4:] == ["check b", "arm b"]


@pytest.mark.parametrize(
    ("refuses", "before"),
    [("accept", []), ("place b", ["accept", "mark b", "belongs"])],
)
def test_a_boot_file_that_has_no_place_ends_the_stage(
    installer: AbInstaller, partition: Partition, refuses: str, before: list[str]
) -> None:
    """A release without one is refused before the slot's first byte."""
    partition.refuses = refuses
    with pytest.raises(BootError):
        installer.stage(IMAGE.order(), Slot.B, fill)
    assert partition.asked == [*before, refuses]


def test_a_boot_file_that_changed_is_not_armed(
    installer: AbInstaller, partition: Partition
) -> None:
    """The loader is never told of it."""
    installer.stage(IMAGE.order(), Slot.B, fill)
    partition.refuses = "check b"
    with pytest.raises(BootError):
        installer.arm(IMAGE.order(), Slot.B)
    assert "arm b" not in partition.asked
