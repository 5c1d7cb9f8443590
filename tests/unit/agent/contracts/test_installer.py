"""What every installer promises: five verbs, each safe to repeat after a cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.file import STORE_BYTES, FileBoot, LoaderStore, Started, choose
from sealift.agent.boot.file import open_store as open_file_store
from sealift.agent.install.ab import AbInstaller
from sealift.agent.ports import Armed, Feature, Running
from sealift.agent.record import Record
from sealift.agent.slot import PathSlots
from sealift.core.errors import BootError, RefusedError, SlotError, SpaceError
from sealift.core.types import Slot
from sealift.sim.device import NEW, OLD, SLOT_BYTES, Image, Kind
from sealift.sim.flash import Door, Flash, FlashCells, FlashSlots

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import Installer, SlotDevice, Slots

IMAGE = NEW[Kind.GOOD]
ORDER = IMAGE.order()


@dataclass
class Bench:
    """A device with an installer; ``start`` is its loader."""

    opened: Callable[[], LoaderStore]
    slots: Slots
    running: Slot = Slot.A
    boots: int = 1

    @property
    def installer(self) -> Installer:
        boot = FileBoot(self.opened(), lambda: Started(self.running, str(self.boots)))
        return AbInstaller(boot, self.slots, boot.boot_id)

    def start(self) -> Slot:
        store = self.opened()
        before = store.read()
        self.running, after = choose(before)
        if after != before:
            store.write(after)
        self.boots += 1
        return self.running

    def content(self, slot: Slot) -> bytes:
        device = self.slots.open(slot, writable=False)
        try:
            return device.read(0, device.size)
        finally:
            device.close()


@pytest.fixture(params=["files", "flash"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    contents = {
        Slot.A: OLD.content.ljust(SLOT_BYTES, b"\xff"),
        Slot.B: b"\xee" * SLOT_BYTES,
    }
    if request.param == "flash":
        flash = Flash(Door())
        for slot, content in contents.items():
            flash.make(f"slot.{slot}", content)

        def opened() -> LoaderStore:
            cells = [FlashCells(flash, name) for name in ("boot", "home")]
            return LoaderStore(*(Record(it, limit=STORE_BYTES) for it in cells))

        return Bench(opened, FlashSlots(flash))
    paths = {}
    for slot, content in contents.items():
        path = tmp_path / f"slot-{slot}"
        path.write_bytes(content)
        path.chmod(0o600)
        paths[slot] = str(path)
    return Bench(lambda: open_file_store(str(tmp_path)), PathSlots(paths))


def fill(into: SlotDevice, base: SlotDevice | None, /) -> None:
    """Bring the image, as ``agent.payload`` does."""
    assert base is None or base.read(0, 5) == OLD.content[:5]
    into.write(0, IMAGE.content)
    into.flush()


def never(into: SlotDevice, base: SlotDevice | None, /) -> None:
    raise AssertionError("nothing may be written")


def test_the_way_of_an_update(bench: Bench) -> None:
    """stage, arm, restart, probe, confirm: and every verb twice."""
    for _ in range(2):
        bench.installer.stage(ORDER, Slot.B, fill)
    assert bench.content(Slot.B).startswith(IMAGE.content)
    for _ in range(2):
        assert bench.installer.arm(ORDER, Slot.B) == Armed(str(bench.boots))
    before = bench.installer.probe()
    assert bench.start() is Slot.B
    assert bench.installer.probe().running is Slot.B
    assert bench.installer.probe().boot_id != before.boot_id
    for _ in range(2):
        bench.installer.confirm(ORDER, Slot.B)
    assert [bench.start() for _ in range(5)] == [Slot.B] * 5


def test_arming_what_runs_says_so(bench: Bench) -> None:
    """The arm was done before a cut: the slot runs already."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    bench.start()
    assert bench.installer.arm(ORDER, Slot.B) == Running(Slot.B)


def test_revert_before_and_after_the_restart(bench: Bench) -> None:
    """At home it disarms at once; elsewhere it asks for a restart, and then is home."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    assert bench.installer.revert(Slot.A) is True
    assert bench.start() is Slot.A
    bench.installer.arm(ORDER, Slot.B)
    bench.start()
    assert bench.installer.revert(Slot.A) is False
    assert bench.start() is Slot.A
    assert bench.installer.revert(Slot.A) is True


def test_revert_takes_back_even_a_confirm(bench: Bench) -> None:
    """A confirm that failed half-way may have reached the store: home is home again."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    bench.start()
    bench.installer.confirm(ORDER, Slot.B)
    assert bench.installer.revert(Slot.A) is False
    assert bench.start() is Slot.A
    assert bench.installer.revert(Slot.A) is True
    assert [bench.start() for _ in range(5)] == [Slot.A] * 5


def test_D08_the_running_slot_is_never_written(bench: Bench) -> None:
    """Whatever the instruction says; not one byte, not one mark."""
    before = bench.content(Slot.A)
    with pytest.raises(SlotError):
        bench.installer.stage(ORDER, Slot.A, never)
    assert bench.content(Slot.A) == before
    assert bench.start() is Slot.A


def test_D09_what_does_not_fit_erases_nothing(bench: Bench) -> None:
    """Size first: the slot keeps its content and its mark."""
    large = Image.make(Kind.GOOD, "9.9", 9, segments=5)
    with pytest.raises(SpaceError) as refused:
        bench.installer.stage(large.order(), Slot.B, never)
    assert refused.value.code == "device.space"
    assert bench.content(Slot.B) == b"\xee" * SLOT_BYTES
    assert bench.opened().read().b == "empty"


def test_B9_the_slot_is_unbootable_before_its_first_byte(bench: Bench) -> None:
    """While it is written, the loader's store says so."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    before = bench.content(Slot.B)

    def refused(into: SlotDevice, base: SlotDevice | None, /) -> None:
        del base
        into.write(SLOT_BYTES, b"beyond the end")

    with pytest.raises(SpaceError):
        bench.installer.stage(ORDER, Slot.B, refused)
    assert bench.content(Slot.B) == before
    assert bench.opened().read().b == "writing"
    assert bench.opened().read().next is Slot.A


def test_an_install_that_writes_nothing_takes_no_entry_away(bench: Bench) -> None:
    """Deferred after a look: the other slot is as bootable as it was."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    before = bench.opened().read()

    def deferred(into: SlotDevice, base: SlotDevice | None, /) -> None:
        del base
        into.read(0, 5)
        raise RefusedError("too many bytes", reason="budget")

    with pytest.raises(RefusedError):
        bench.installer.stage(ORDER, Slot.B, deferred)
    assert bench.opened().read() == before


@pytest.mark.parametrize("at", [0, 20, len(IMAGE.content) - 1])
def test_W8_a_lying_write_is_found(bench: Bench, at: int) -> None:
    """One byte other than the signed digest says: device.slot, and nothing is armed."""

    def lying(into: SlotDevice, base: SlotDevice | None, /) -> None:
        fill(into, base)
        into.write(at, bytes([IMAGE.content[at] ^ 1]))
        into.flush()

    with pytest.raises(SlotError) as refused:
        bench.installer.stage(ORDER, Slot.B, lying)
    assert refused.value.code == "device.slot"
    assert bench.start() is Slot.A


@pytest.mark.parametrize("at", [0, len(IMAGE.content) - 1])
def test_D01_a_slot_changed_after_staging_is_not_armed(bench: Bench, at: int) -> None:
    """Flipped between stage and arm: device.slot, the old slot goes on booting."""
    bench.installer.stage(ORDER, Slot.B, fill)
    device = bench.slots.open(Slot.B, writable=True)
    device.write(at, bytes([IMAGE.content[at] ^ 0x80]))
    device.flush()
    device.close()
    with pytest.raises(SlotError):
        bench.installer.arm(ORDER, Slot.B)
    assert [bench.start() for _ in range(3)] == [Slot.A] * 3


def test_bytes_behind_the_image_do_not_matter(bench: Bench) -> None:
    """The slot is longer than the image; what lies behind stays as it was."""
    bench.installer.stage(ORDER, Slot.B, fill)
    tail = bench.content(Slot.B)[len(IMAGE.content) :]
    assert tail == b"\xee" * (SLOT_BYTES - len(IMAGE.content))


def test_B7_confirm_only_from_inside(bench: Bench) -> None:
    """From home, or before any restart: device.boot, and nothing changes."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    with pytest.raises(BootError):
        bench.installer.confirm(ORDER, Slot.B)
    assert bench.opened().read().default is Slot.A


def test_a_trial_never_overwrites_its_way_home(bench: Bench) -> None:
    """On an unconfirmed slot nothing is staged: the other slot is all there is."""
    bench.installer.stage(ORDER, Slot.B, fill)
    bench.installer.arm(ORDER, Slot.B)
    bench.start()
    with pytest.raises(BootError) as refused:
        bench.installer.stage(ORDER, Slot.A, never)
    assert refused.value.hint
    assert bench.content(Slot.A).startswith(OLD.content)


def test_features_are_those_of_two_slots(bench: Bench) -> None:
    """It resumes, reads the base for deltas, and keeps the old version until confirm."""
    wanted = Feature.RESUME | Feature.DELTA | Feature.ROLLBACK
    assert bench.installer.features == wanted
