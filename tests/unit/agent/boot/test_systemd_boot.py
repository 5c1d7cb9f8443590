"""systemd-boot: the rules D1 … D12 of device.md, over directories and over cut flash."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealift.agent.boot.systemd_boot import SystemdBoot
from sealift.agent.clock import SystemClock
from sealift.agent.efivars import FIRMWARE, LOADER, EfiVariables, as_text, as_value
from sealift.agent.entries import entries, matching
from sealift.agent.esp import Directory, Programs
from sealift.agent.install.ab import AbInstaller
from sealift.agent.placing import PIECE_BYTES
from sealift.core.errors import BootError, SlotError, SpaceError
from sealift.core.types import Artifact, BootKind, Slot
from sealift.sim.flash import (
    BEFORE,
    INSIDE,
    KILLED,
    Door,
    Flash,
    FlashSlot,
    Killed,
    PowerCut,
    Weather,
)
from sealift.sim.loaders.systemd_boot import NamesWorld, SystemdBootWorld
from sealift.sim.loaders.uki import bootable_image, pe_file
from tests.unit.agent.boot.uefi_board import UefiOnDisk


@pytest.fixture
def board(tmp_path: Path) -> UefiOnDisk:
    board = UefiOnDisk(tmp_path)
    board.start()
    return board


def source(content: bytes) -> FlashSlot:
    flash = Flash(Door())
    flash.make("slot.b", content)
    return FlashSlot(flash, "slot.b", writable=False)


def variable(board: UefiOnDisk, name: str) -> str:
    return as_text(EfiVariables(str(board.efivars)).read(name))


# ── names and variables, byte for byte ───────────────────────────────────────────────
def test_an_update_as_the_partition_and_the_variables_see_it(board: UefiOnDisk) -> None:
    """Placed, armed, started, confirmed: names and values at each step."""
    boot = board.boot()
    boot.mark_writing(Slot.B)
    board.install(Slot.B)
    assert board.names() == ["sealift-a.efi", "sealift-b+3.efi"]
    assert variable(board, "LoaderEntryOneShot") == ""
    boot.set_next(Slot.B, 1)
    raw = (board.efivars / f"LoaderEntryOneShot-{LOADER}").read_bytes()
    assert raw == b"\7\0\0\0" + "sealift-b+3.efi\0".encode("utf-16-le")
    assert variable(board, "LoaderEntryDefault") == "sealift-a*"
    assert board.start() is Slot.B
    assert board.names() == ["sealift-a.efi", "sealift-b+2-1.efi"]
    board.boot().mark_good()
    assert variable(board, "LoaderEntryDefault") == "sealift-b*"
    assert board.names() == ["sealift-a.efi", "sealift-b.efi"]
    assert not list((board.esp / "EFI" / "sealift").iterdir())


@pytest.mark.parametrize(
    ("name", "slot", "left", "done"),
    [
        ("sealift-a.efi", Slot.A, None, 0),
        ("SEALIFT-B.EFI", Slot.B, None, 0),
        ("sealift-b+3.efi", Slot.B, 3, 0),
        ("sealift-b+0-3.efi", Slot.B, 0, 3),
    ],
)
def test_names_of_entries(name: str, slot: Slot, left: int | None, done: int) -> None:
    """Slot, attempts left, attempts done."""
    [entry] = entries({name: 1})
    assert (entry.slot, entry.left, entry.done) == (slot, left, done)


@pytest.mark.parametrize(
    "name",
    ["sealift-c.efi", "sealift-a", "sealift-a+.efi", "sealift-a+1-.efi", "sealift-a-1.efi",
     "sealift-a+1234567.efi", "x-sealift-a.efi", "sealift-a.efi.tmp", "sealift-a\n.efi"],
)  # fmt: skip
def test_other_names_are_not_ours(name: str) -> None:
    """Neither started nor removed by us; nor is an empty file an entry."""
    assert entries({name: 1}) == []
    assert entries({"sealift-a.efi": 0}) == []


def test_a_pattern_matches_as_in_the_loader() -> None:
    """The default's ``*`` takes counted and confirmed names; an exact name one."""
    found = entries({"sealift-b+2-1.efi": 1, "sealift-b.efi": 1, "sealift-a.efi": 1})
    assert [it.name for it in matching(found, "sealift-b*")] == [
        "sealift-b+2-1.efi",
        "sealift-b.efi",
    ]
    assert [it.name for it in matching(found, "sealift-b+2-1.efi")] == [
        "sealift-b+2-1.efi"
    ]
    assert matching(found, "sealift-b+3.efi") == []


# ── D1: what a refused image costs ───────────────────────────────────────────────────
def refused_b(slot: Slot) -> bool:
    return slot is Slot.A


def test_device_D1_refused_by_one_shot_is_home_in_the_same_power_on() -> None:
    """One run of the firmware: the loader ends, is started again, and takes home."""
    world = SystemdBootWorld()
    world.start()
    world.boot().mark_writing(Slot.B)
    world.install(Slot.B)
    world.boot().set_next(Slot.B, 1)
    assert world.decide(refused_b) is Slot.A


@pytest.mark.parametrize("name", ["sealift-b.efi", "sealift-b+3.efi"])
def test_device_D1_refused_by_name_is_a_stop(name: str) -> None:
    """Which is why nothing unconfirmed is ever reached by its name, and home is pinned."""
    world = SystemdBootWorld()
    world.boot().mark_writing(Slot.B)
    world.install(Slot.B)
    if name == "sealift-b.efi":
        world.partition().rename("EFI/Linux/sealift-b+3.efi", f"EFI/Linux/{name}")
    world.lose("nvram")
    with pytest.raises(BootError, match="waits for a key"):
        world.decide(refused_b)


def test_device_D1_home_is_pinned_before_anything_is_armed(board: UefiOnDisk) -> None:
    """The variable was lost: the names say who is home, and it is said again first."""
    board.lose("nvram")
    board.start()
    board.boot().mark_writing(Slot.B)
    assert variable(board, "LoaderEntryDefault") == "sealift-a*"


def test_device_D1_without_variables_a_watchdog_is_asked_for() -> None:
    """By names alone a trial works and returns; ``state`` says what it needs."""
    world = NamesWorld()
    world.start()
    world.boot().mark_writing(Slot.B)
    world.install(Slot.B)
    assert world.boot().state().slots[Slot.B] == "writing", "placed is not armed"
    assert world.start() is Slot.A
    world.boot().set_next(Slot.B, 2)
    assert [world.start() for _ in range(4)] == [Slot.B, Slot.B, Slot.A, Slot.A]
    [remark] = world.boot().state().remarks
    assert "hardware watchdog is required" in remark


def test_without_variables_what_sorts_behind_home_cannot_be_armed() -> None:
    """An older version would never start: device.boot, and home starts."""
    world = NamesWorld()
    world.start()
    world.boot().mark_writing(Slot.B)
    content, image = bootable_image("0")
    world.files().place(Slot.B, image, source(content))
    with pytest.raises(BootError, match="behind"):
        world.boot().set_next(Slot.B, 1)
    assert world.start() is Slot.A


# ── D2 ───────────────────────────────────────────────────────────────────────────────
def test_device_D2_current_with_lying_variables(board: UefiOnDisk) -> None:
    """``LoaderEntrySelected`` and the path with the count name b: slot a runs."""
    board.provide("LoaderEntrySelected", as_value("sealift-b+3.efi"))
    board.provide("LoaderBootCountPath", as_value("\\EFI\\Linux\\sealift-b+2-1.efi"))
    assert board.boot().current() is Slot.A
    with pytest.raises(BootError):
        board.boot().mark_writing(Slot.A)


# ── D3 ───────────────────────────────────────────────────────────────────────────────
class Watching(Directory):
    """Calls ``look`` before every change of the partition."""

    look: Callable[[], None]

    def create(self, name: str) -> None:
        self.look()
        super().create(name)

    def append(self, name: str, data: bytes) -> None:
        self.look()
        super().append(name, data)

    def rename(self, old: str, new: str) -> None:
        self.look()
        super().rename(old, new)

    def remove(self, name: str) -> None:
        self.look()
        super().remove(name)


def test_device_D3_default_names_home_at_every_write(tmp_path: Path) -> None:
    """It changes inside ``mark_good``, before the first write there, and at no other."""

    class Board(UefiOnDisk):
        seen: list[str]

        def partition(self) -> Directory:
            found = Watching(str(self.esp), Programs(SystemClock()))
            found.look = lambda: self.seen.append(variable(self, "LoaderEntryDefault"))
            return found

        def start(self, starts: Callable[[Slot], bool] = lambda _: True) -> Slot:
            found = super().start(starts)
            self.seen.clear()
            return found

    Board.seen = []
    board = Board(tmp_path)
    for slot in (Slot.B, Slot.A, Slot.B):
        board.start()
        board.boot().mark_writing(slot)
        board.install(slot)
        board.boot().set_next(slot, 1)
        assert set(board.seen) == {f"sealift-{slot.other}*"}
        assert board.start() is slot
        board.boot().mark_good()
        assert set(board.seen) == {f"sealift-{slot}*"}


# ── D5 ───────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("option", ["sync", "dirsync", "rw"])
def test_device_D5_a_synchronous_mount_is_told(board: UefiOnDisk, option: str) -> None:
    """Found in the mount table; an option of that name elsewhere is not ours."""
    table = board.directory / "mountinfo"
    table.write_text(
        "21 1 8:2 / / rw,sync shared:1 - ext4 /dev/root rw\n"
        f"22 21 8:1 / {board.esp} rw,relatime - vfat /dev/esp rw,{option},fmask=77\n"
    )
    found = Directory(str(board.esp), Programs(SystemClock()), mounts=str(table))
    assert len(found.remarks()) == (option != "rw")


# ── D6 ───────────────────────────────────────────────────────────────────────────────
class Flipping(Directory):
    """A medium that loses one bit of what was flushed."""

    def flush(self, name: str) -> None:
        super().flush(name)
        path = Path(self._at(name))
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)


def test_device_D6_flip_one_byte_after_fsync(board: UefiOnDisk) -> None:
    """device.slot; no entry, and no temporary file."""
    boot = SystemdBoot(
        board.variables(),
        Flipping(str(board.esp), Programs(SystemClock())),
        lambda: Slot.A,
        lambda: "1",
    )
    content, image = bootable_image("2")
    with pytest.raises(SlotError) as refused:
        boot.place(Slot.B, image, source(content))
    assert refused.value.code == "device.slot"
    assert board.names() == ["sealift-a.efi"]
    assert not list((board.esp / "EFI" / "sealift").iterdir())


@pytest.mark.parametrize("fact", ["root_hash", "salt", "data_blocks"])
def test_device_D6_a_boot_file_for_another_root_gets_no_name(
    board: UefiOnDisk, fact: str
) -> None:
    """Digest right, command line of another root: device.slot, no entry."""
    content, image = bootable_image("2")
    assert image.bootable is not None
    other = 2 if fact == "data_blocks" else bytes(32)
    lying = dataclasses.replace(image.bootable, **{fact: other})  # type: ignore[arg-type]
    image = dataclasses.replace(image, bootable=lying)
    with pytest.raises(SlotError):
        board.boot().place(Slot.B, image, source(content))
    assert board.names() == ["sealift-a.efi"]


def test_device_D6_what_changed_after_it_was_placed_is_not_armed(
    board: UefiOnDisk,
) -> None:
    """``check``, which the installer calls before it arms, reads the file again."""
    content, image = bootable_image("2")
    board.boot().place(Slot.B, image, source(content))
    board.boot().check(Slot.B, image)
    path = board.esp / "EFI" / "Linux" / "sealift-b+3.efi"
    for changed in (path.read_bytes()[:-1] + b"\xff", path.read_bytes() + b"x"):
        path.write_bytes(changed)
        with pytest.raises(SlotError):
            board.boot().check(Slot.B, image)
    path.unlink()
    with pytest.raises(SlotError):
        board.boot().check(Slot.B, image)


def test_a_placed_file_that_is_whole_is_not_written_again(board: UefiOnDisk) -> None:
    """A repeat changes nothing; a started one of the same release is made anew."""
    content, image = bootable_image("2")
    board.boot().place(Slot.B, image, source(content))
    path = board.esp / "EFI" / "Linux" / "sealift-b+3.efi"
    before = path.stat().st_ino
    board.boot().place(Slot.B, image, source(content))
    assert path.stat().st_ino == before
    path.rename(path.with_name("sealift-b+1-2.efi"))
    board.boot().place(Slot.B, image, source(content))
    assert board.names() == ["sealift-a.efi", "sealift-b+3.efi"]


def test_a_boot_file_is_never_whole_in_memory(board: UefiOnDisk) -> None:
    """Pieces of 256 KiB on the way in, and on the way back."""

    class Narrow(Directory):
        def append(self, name: str, data: bytes) -> None:
            assert len(data) <= PIECE_BYTES
            super().append(name, data)

        def read(self, name: str, offset: int, length: int) -> bytes:
            assert length <= PIECE_BYTES
            return super().read(name, offset, length)

    content, image = bootable_image("2")
    large = content + bytes(3 << 20)
    bootable = image.bootable
    assert bootable is not None
    digest = hashlib.sha256(large[bootable.offset :]).digest()
    bootable = dataclasses.replace(
        bootable, length=len(large) - bootable.offset, sha256=digest
    )
    image = dataclasses.replace(image, bootable=bootable)
    esp = Narrow(str(board.esp), Programs(SystemClock()))
    boot = SystemdBoot(board.variables(), esp, lambda: Slot.A, lambda: "1")
    boot.place(Slot.B, image, source(large))
    boot.check(Slot.B, image)


@pytest.mark.parametrize("slot", list(Slot))
def test_the_boot_file_in_use_is_never_replaced(board: UefiOnDisk, slot: Slot) -> None:
    """Neither that of what runs nor that of home."""
    board.boot().mark_writing(Slot.B)
    board.install(Slot.B)
    board.boot().set_next(Slot.B, 1)
    board.start()
    content, image = bootable_image("9")
    before = board.stored()
    with pytest.raises(BootError):
        board.boot().place(slot, image, source(content))
    assert board.stored() == before


def test_an_image_without_a_kernel_image_is_refused(board: UefiOnDisk) -> None:
    """Or with one for U-Boot: device.boot, before anything is touched."""
    _, image = bootable_image("2")
    assert image.bootable is not None
    fit = dataclasses.replace(image.bootable, kind=BootKind.FIT)
    for bootable in (None, fit):
        with pytest.raises(BootError):
            board.boot().accept(dataclasses.replace(image, bootable=bootable))


# ── D7 ───────────────────────────────────────────────────────────────────────────────
def test_device_D7_the_immutable_mark_goes_first_and_one_write_is_one_set(
    board: UefiOnDisk,
) -> None:
    """Set twice, delete, delete again; the mark of an existing one is taken off."""
    marks: list[tuple[int, int]] = []

    def ioctl(_file: int, request: int, flags: list[int]) -> None:
        if request & 0xFF == 1 and request >> 30 == 2:  # FS_IOC_GETFLAGS
            flags[0] = 0x10
        marks.append((request & 0xFFFF, flags[0]))

    found = EfiVariables(str(board.efivars), ioctl=ioctl)  # type: ignore[arg-type]
    found.write("LoaderEntryOneShot", as_value("sealift-b+3.efi"))
    assert marks == [], "a new one has no mark"
    found.write("LoaderEntryOneShot", as_value("sealift-a.efi"))
    assert marks == [(0x6601, 0x10), (0x6602, 0)]
    assert as_text(found.read("LoaderEntryOneShot")) == "sealift-a.efi"
    found.delete("LoaderEntryOneShot")
    found.delete("LoaderEntryOneShot")
    assert found.read("LoaderEntryOneShot") is None


def test_the_request_numbers_are_the_kernels() -> None:
    """``FS_IOC_GETFLAGS`` and ``FS_IOC_SETFLAGS`` of linux/fs.h, with the long's size."""
    import struct

    from sealift.agent import efivars

    sizes = {8: (0x80086601, 0x40086602), 4: (0x80046601, 0x40046602)}
    assert sizes[struct.calcsize("l")] == (efivars._GETFLAGS, efivars._SETFLAGS)


def test_without_variables_nothing_is_guessed(tmp_path: Path) -> None:
    """No efivarfs: device.boot with a hint; garbage in one: no text."""
    with pytest.raises(BootError) as refused:
        EfiVariables(str(tmp_path / "none")).read("LoaderInfo")
    assert refused.value.hint
    (tmp_path / f"LoaderInfo-{LOADER}").write_bytes(b"\7\0\0\0\x00\xd8\x01")
    assert as_text(EfiVariables(str(tmp_path)).read("LoaderInfo")) == ""


def test_a_firmware_that_keeps_another_value_is_found_out(tmp_path: Path) -> None:
    """What was set is read back."""
    found = EfiVariables(str(tmp_path))
    path = tmp_path / f"LoaderEntryDefault-{LOADER}"
    path.symlink_to("/dev/null")
    with pytest.raises(BootError):
        found.write("LoaderEntryDefault", as_value("sealift-a*"))


# ── D9 ───────────────────────────────────────────────────────────────────────────────
def states() -> Mapping[str, Callable[[SystemdBootWorld], None]]:
    def placed(world: SystemdBootWorld) -> None:
        world.boot().mark_writing(Slot.B)
        world.install(Slot.B)

    def armed(world: SystemdBootWorld) -> None:
        placed(world)
        world.boot().set_next(Slot.B, 1)

    def trial(world: SystemdBootWorld) -> None:
        armed(world)
        assert world.start() is Slot.B

    def confirmed(world: SystemdBootWorld) -> None:
        trial(world)
        world.boot().mark_good()

    return {
        "idle": lambda _: None,
        "writing": lambda it: it.boot().mark_writing(Slot.B),
        "placed": placed,
        "armed": armed,
        "trial": trial,
        "confirmed": confirmed,
    }


@pytest.mark.parametrize("state", states())
def test_device_D9_all_loader_variables_deleted_in_each_state(state: str) -> None:
    """B5, B8: home boots at last, ``state`` tells, and the next update is as ever."""
    world = SystemdBootWorld()
    world.start()
    states()[state](world)
    home = world.home()
    world.lose("nvram")
    starts = [world.start() for _ in range(5)]
    assert starts[-1] is home
    assert any("is not there" in it for it in world.boot().state().remarks)
    world.boot().set_next(home, 1)
    for slot in (home.other, home):
        world.boot().mark_writing(slot)
        world.install(slot)
        world.boot().set_next(slot, 1)
        assert world.start() is slot
        world.boot().mark_good()
        assert [world.start() for _ in range(3)] == [slot] * 3
    assert not world.boot().state().remarks


def test_device_D9_a_trial_survives_the_loss(board: UefiOnDisk) -> None:
    """Wiped while b runs on trial: home is still a; confirming b makes it home."""
    board.boot().mark_writing(Slot.B)
    board.install(Slot.B)
    board.boot().set_next(Slot.B, 1)
    board.start()
    board.lose("nvram")
    assert board.boot().state().slots == {Slot.A: "good", Slot.B: "trial(2)"}
    board.boot().mark_good()
    assert board.boot().state().slots[Slot.B] == "good"
    assert variable(board, "LoaderEntryDefault") == "sealift-b*"


# ── D10 ──────────────────────────────────────────────────────────────────────────────
def test_device_D10_no_entry_of_a_slot_that_is_written() -> None:
    """Cut at every step of an install: where b is not whole, nothing names it."""
    content, image = bootable_image("2")
    for point in range(1, 200):
        world = SystemdBootWorld()
        world.start()
        world.boot().mark_writing(Slot.B)
        world.install(Slot.B)
        world.boot().set_next(Slot.B, 1)
        world.flash.make("slot.b", b"old".ljust(8192, b"\0"))
        world.flash.door.cuts = frozenset([world.flash.door.steps + point / 2])
        try:
            install(world, content, image)
        except PowerCut:
            world.power_lost()
        else:
            return
        world.flash.door.cuts = frozenset()
        whole = bytes(world.flash.medium["slot.b"])[: len(content)] == content
        untouched = bytes(world.flash.medium["slot.b"]).startswith(b"old")
        names = [it.slot for it in entries(world.partition().files("EFI/Linux"))]
        assert whole or untouched or Slot.B not in names, point
        assert [world.start() for _ in range(4)][-1] is Slot.A
    raise AssertionError("never came to an end")


@pytest.mark.parametrize("kind", [SystemdBootWorld, NamesWorld])
def test_device_D10_a_killed_agent_is_not_believed(
    kind: type[SystemdBootWorld],
) -> None:
    """Killed after a step, done again, then the power goes: what was said is durable."""
    for verb in ("mark_writing", "mark_good"):
        for step in range(1, 40):
            world = kind(Flash(Door(), Weather.LOST))
            world.start()
            world.boot().mark_writing(Slot.B)
            world.install(Slot.B)
            world.boot().set_next(Slot.B, 1)
            if verb == "mark_good":
                assert world.start() is Slot.B
            world.flash.sync()

            def act(world: SystemdBootWorld = world, verb: str = verb) -> None:
                if verb == "mark_good":
                    world.boot().mark_good()
                else:
                    world.boot().mark_writing(Slot.B)

            world.flash.door.cuts = frozenset([world.flash.door.steps + step + KILLED])
            try:
                act()
            except Killed:
                world.flash.door.cuts = frozenset()
                act()
            world.power_lost()
            names = [it.slot for it in entries(world.partition().files("EFI/Linux"))]
            if verb == "mark_writing":
                assert Slot.B not in names, step
            else:
                assert [world.start() for _ in range(5)] == [Slot.B] * 5, step


def install(world: SystemdBootWorld, content: bytes, image: Artifact) -> None:
    world.boot().mark_writing(Slot.B)
    into = FlashSlot(world.flash, "slot.b", writable=True)
    for at in range(0, len(content), 1024):
        into.write(at, content[at : at + 1024])
    into.flush()
    world.files().place(Slot.B, image, into)


# ── D11 ──────────────────────────────────────────────────────────────────────────────
class Small(Directory):
    """A partition with little room."""

    free = 0
    wall: int | None = None

    def room(self) -> int:
        return self.free

    def append(self, name: str, data: bytes) -> None:
        if self.wall is not None:
            raise SpaceError("the EFI system partition is full")
        super().append(name, data)


def small(board: UefiOnDisk, current: Slot = Slot.A) -> tuple[SystemdBoot, Small]:
    esp = Small(str(board.esp), Programs(SystemClock()))
    return SystemdBoot(board.variables(), esp, lambda: current, lambda: "1"), esp


def test_device_D11_esp_full_is_told_before_anything_is_touched(
    board: UefiOnDisk,
) -> None:
    """Room for two more boot files, those counted that will be removed."""
    content, image = bootable_image("2")
    boot, esp = small(board)
    before = board.stored()
    with pytest.raises(SpaceError):
        boot.accept(image)
    assert board.stored() == before
    assert image.bootable is not None
    esp.free = 2 * (image.bootable.length + 65536)
    boot.accept(image)
    boot.place(Slot.B, image, source(content))
    esp.free -= image.bootable.length
    boot.accept(image)


def test_device_D11_esp_full_while_placing(board: UefiOnDisk) -> None:
    """device.space, home untouched, and the next start of it cleans up."""
    content, image = bootable_image("2")
    boot, esp = small(board)
    esp.wall = 0
    with pytest.raises(SpaceError):
        boot.place(Slot.B, image, source(content))
    assert board.names() == ["sealift-a.efi"]
    board.boot().mark_writing(Slot.B)
    assert not list((board.esp / "EFI" / "sealift").iterdir())


def test_device_D11_esp_full_while_confirming(board: UefiOnDisk) -> None:
    """The decision stands, ``state`` says that the name still counts, later it follows."""
    board.boot().mark_writing(Slot.B)
    board.install(Slot.B)
    board.boot().set_next(Slot.B, 1)
    board.start()
    boot, esp = small(board, Slot.B)
    esp.wall = 0
    boot.mark_good()
    assert boot.state().slots[Slot.B] == "good"
    assert any("still counts" in it for it in boot.state().remarks)
    assert board.start() is Slot.B
    board.boot().mark_writing(Slot.A)
    assert board.names() == ["sealift-b.efi"]


def test_device_D11_what_cuts_leave_is_removed(board: UefiOnDisk) -> None:
    """Recovered clusters, empty entries, temporaries; nothing else."""
    for name in ("FSCK0000.REC", "FSCK0001.REC", "EFI/Linux/sealift-b.efi"):
        (board.esp / name).touch()
    (board.esp / "EFI" / "sealift").mkdir()
    (board.esp / "EFI" / "sealift" / "new.tmp").write_bytes(b"half")
    (board.esp / "EFI" / "Linux" / "other.efi").touch()
    (board.esp / "readme.txt").write_text("ours to keep")
    board.boot().mark_writing(Slot.B)
    assert board.names() == ["other.efi", "sealift-a.efi"]
    assert not list(board.esp.glob("FSCK*"))
    assert not list((board.esp / "EFI" / "sealift").iterdir())
    assert (board.esp / "readme.txt").exists()


def test_device_D11_esp_after_100_cuts() -> None:
    """It does not fill up: 100 cut updates, then one that is not cut, and no remainder."""
    chance = random.Random(11)
    world = SystemdBootWorld(Flash(Door(), seed=11))
    world.start()
    for _ in range(100):
        here = world.running
        world.flash.door.cuts = frozenset(
            [
                world.flash.door.steps
                + chance.randint(1, 40)
                + chance.choice([BEFORE, INSIDE])
            ]
        )
        try:
            world.boot().mark_writing(here.other)
            world.install(here.other)
            world.boot().set_next(here.other, 1)
            world.start()
            world.boot().mark_good()
        except PowerCut:
            world.power_lost()
        world.flash.door.cuts = frozenset()
        starts = [world.start() for _ in range(5)]
        assert starts[-1] is world.home()
        world.boot().set_next(world.home(), 1)
    esp = world.partition()
    world.boot().mark_writing(world.running.other)
    assert len(esp.files("EFI/Linux")) == 1
    assert not esp.files("EFI/sealift")


def test_device_D11_mounted_only_while_in_use(tmp_path: Path) -> None:
    """To look read-only; to write after a check; unmounted in any case."""
    log = tmp_path / "log"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit ${{STATUS:-0}}\n')
    program.chmod(0o700)
    board = UefiOnDisk(tmp_path / "board")
    board.start()

    def partition(**more: list[str]) -> Directory:
        words = {it: [str(program), it] for it in ("check", "mount", "unmount")} | more
        return Directory(str(board.esp), Programs(SystemClock(), **words))

    boot = SystemdBoot(board.variables(), partition(), lambda: Slot.A, lambda: "1")
    boot.state()
    assert log.read_text().splitlines() == ["mount -r", "unmount"]
    log.unlink()
    boot.mark_writing(Slot.B)
    assert log.read_text().splitlines() == ["check", "mount", "unmount"]
    with pytest.raises(BootError):
        boot.mark_writing(Slot.A)
    assert log.read_text().splitlines()[-1] == "unmount"
    for wrong in ("/bin/false", str(tmp_path / "missing")):
        esp = partition(mount=[wrong])
        with pytest.raises(BootError):
            SystemdBoot(board.variables(), esp, lambda: Slot.A, lambda: "1").state()


def test_device_D11_what_was_left_mounted_is_unmounted_first(tmp_path: Path) -> None:
    """An agent was killed in the middle: nothing that is mounted is mended or mounted."""
    log, table = tmp_path / "log", tmp_path / "mountinfo"
    board = UefiOnDisk(tmp_path / "board")
    board.start()
    program = tmp_path / "program"
    program.write_text(
        f'#!/bin/sh\necho "$1" >> {log}\n[ $1 != unmount ] || : > {table}\n'
    )
    program.chmod(0o700)
    words = {it: [str(program), it] for it in ("check", "mount", "unmount")}
    esp = Directory(str(board.esp), Programs(SystemClock(), **words), mounts=str(table))
    table.write_text(f"22 21 8:1 / {board.esp} rw - vfat /dev/esp rw\n")
    boot = SystemdBoot(board.variables(), esp, lambda: Slot.A, lambda: "1")
    boot.mark_writing(Slot.B)
    assert log.read_text().split() == ["unmount", "check", "mount", "unmount"]


def test_device_D11_two_processes_wait_for_each_other(tmp_path: Path) -> None:
    """``status`` beside an install: the second one mounts when the first is through."""
    log = tmp_path / "log"
    board = UefiOnDisk(tmp_path / "board")
    words = {
        it: ["/bin/sh", "-c", f"echo {it} >> {log}", it] for it in ("mount", "unmount")
    }

    def partition() -> Directory:
        return Directory(str(board.esp), Programs(SystemClock(), **words))

    with ThreadPoolExecutor(1) as other:
        with partition().using(write=True):
            waiting = other.submit(looked_at, partition())
            time.sleep(0.5)
            assert log.read_text().split() == ["mount"]
            assert not waiting.done()
        waiting.result(60)
    assert log.read_text().split() == ["mount", "unmount"] * 2


def looked_at(esp: Directory) -> None:
    with esp.using(write=False):
        pass


def test_a_partition_that_stays_mounted_undoes_nothing(tmp_path: Path) -> None:
    """The verb is done; the failure is logged, and mended at the next use."""
    board = UefiOnDisk(tmp_path)
    board.start()
    programs = Programs(SystemClock(), mount=["/bin/true"], unmount=["/bin/false"])
    esp = Directory(str(board.esp), programs)
    boot = SystemdBoot(board.variables(), esp, lambda: Slot.A, lambda: "1")
    boot.mark_writing(Slot.B)
    assert boot.next() is Slot.A


def test_a_one_shot_left_behind_does_not_arm_what_is_placed(board: UefiOnDisk) -> None:
    """It names an entry there is not; placed under that very name it would start."""
    board.provide("LoaderEntryOneShot", as_value("sealift-b+3.efi"))
    content, image = bootable_image("2")
    board.boot().place(Slot.B, image, source(content))
    assert board.boot().next() is Slot.A
    board.provide("LoaderEntryOneShot", as_value("sealift-b+3.efi"))
    board.boot().place(Slot.B, image, source(content))
    assert board.boot().next() is Slot.A


@pytest.mark.parametrize("name", ["LoaderEntryPreferred", "LoaderEntrySysFail"])
def test_variables_of_newer_loaders_are_told(board: UefiOnDisk, name: str) -> None:
    """They name an entry as well, and this version does not know them."""
    board.provide(name, as_value("sealift-b*"))
    assert any(name in it for it in board.boot().state().remarks)


def test_a_partition_that_is_not_mounted_is_not_written(board: UefiOnDisk) -> None:
    """Without a directory ``EFI`` it is a mount point and nothing else."""
    shutil.rmtree(board.esp / "EFI")
    for verb in (
        lambda: board.boot().mark_writing(Slot.B),
        lambda: board.boot().state(),
    ):
        with pytest.raises(BootError) as refused:
            verb()
        assert refused.value.hint
    assert list(board.esp.iterdir()) == []


# ── D12 and what else state tells ────────────────────────────────────────────────────
def test_device_D12_state_tells_the_loader(board: UefiOnDisk) -> None:
    """Its own word; versions that nobody tested, and those that count wrongly."""
    found = board.boot().state()
    assert found.version == "systemd-boot 252.39-1~deb12u1"
    assert not found.remarks
    for version, said in {"255.4": "none of the tested", "258.1": "count"}.items():
        board.provide("LoaderInfo", as_value(f"systemd-boot {version}"))
        [remark] = board.boot().state().remarks
        assert said in remark
    board.provide("LoaderInfo", as_value("rEFInd 0.13"))
    [missing] = board.boot().state().missing
    assert "not systemd-boot" in missing


def test_secure_boot_is_told(board: UefiOnDisk) -> None:
    """Off, unknown, or in setup mode: a remark each."""
    board.provide("SecureBoot", b"\0", FIRMWARE)
    assert any("Secure Boot is off" in it for it in board.boot().state().remarks)
    board.provide("SecureBoot", b"\1", FIRMWARE)
    board.provide("SetupMode", b"\1", FIRMWARE)
    assert any("setup mode" in it for it in board.boot().state().remarks)


def test_what_else_the_loader_could_start_is_told(board: UefiOnDisk) -> None:
    """A foreign image, and a default in the loader's own configuration."""
    (board.esp / "EFI" / "Linux" / "debian.efi").write_bytes(b"MZ")
    (board.esp / "loader").mkdir()
    (board.esp / "loader" / "loader.conf").write_text("timeout 3\ndefault @saved\n")
    remarks = board.boot().state().remarks
    assert any("debian.efi" in it for it in remarks)
    assert any("loader.conf" in it for it in remarks)


def test_home_without_an_entry_is_missing(board: UefiOnDisk) -> None:
    """And nothing can be armed: there would be no way home."""
    (board.esp / "EFI" / "Linux" / "sealift-a.efi").unlink()
    assert board.boot().state().missing
    for verb in ("mark_writing", "mark_good"):
        with pytest.raises(BootError):
            getattr(board.boot(), verb)(*[Slot.B] * (verb == "mark_writing"))
    with pytest.raises(BootError):
        board.boot().next()


@pytest.mark.parametrize(
    "value", ["sealift-b+3.efi", "@saved", "sealift-c*", "\ud800", ""]
)
def test_a_foreign_default_is_no_home(board: UefiOnDisk, value: str) -> None:
    """Set by somebody else: told, and set right before anything builds on it."""
    raw = value.encode("utf-16-le", "surrogatepass") + b"\0\0"
    board.provide("LoaderEntryDefault", raw)
    assert board.boot().state().slots[Slot.A] == "good"
    assert board.boot().state().remarks
    board.boot().mark_writing(Slot.B)
    assert variable(board, "LoaderEntryDefault") == "sealift-a*"


def test_a_one_shot_nobody_can_match_is_no_trial(board: UefiOnDisk) -> None:
    """The loader passes over it, and so do we; disarming removes it."""
    board.provide("LoaderEntryOneShot", as_value("sealift-b+3.efi"))
    assert board.boot().next() is Slot.A
    board.boot().set_next(Slot.A, 1)
    assert variable(board, "LoaderEntryOneShot") == ""


# ── the installer over it ────────────────────────────────────────────────────────────
def test_a_failed_confirm_is_taken_back(board: UefiOnDisk) -> None:
    """The variable names b, the journal goes back: a is armed, starts, is home again."""
    board.boot().mark_writing(Slot.B)
    board.install(Slot.B)
    board.boot().set_next(Slot.B, 1)
    board.start()
    board.boot().mark_good()

    def installer() -> AbInstaller:
        return AbInstaller(board.boot(), NoSlots(), lambda: "1")

    assert not installer().revert(Slot.A)
    assert board.boot().next() is Slot.A
    assert board.start() is Slot.A
    assert installer().revert(Slot.A)
    assert variable(board, "LoaderEntryDefault") == "sealift-a*"
    assert [board.start() for _ in range(3)] == [Slot.A] * 3


class NoSlots:
    def open(self, slot: Slot, *, writable: bool) -> FlashSlot:
        raise SlotError(f"slot {slot}")


# ── hostile partitions ───────────────────────────────────────────────────────────────
def hostile() -> Iterator[bytes]:
    good = bootable_image("7")[0][4096:]
    yield b"MZ"
    yield good[:200]
    yield bytes(4096)
    yield pe_file({".linux": b"x"})
    yield pe_file({".osrel": b"IMAGE_VERSION=\xff\xfe\n=\n\0junk"})
    chance = random.Random(3)
    for _ in range(60):
        bent = bytearray(good)
        bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        yield bytes(bent)


def test_no_file_in_the_loaders_directory_crashes_us(board: UefiOnDisk) -> None:
    """Truncated, empty, bent: errors of ours at most."""
    path = board.esp / "EFI" / "Linux" / "sealift-b+3.efi"
    board.lose("nvram")
    _, image = bootable_image("7")
    for raw in hostile():
        path.write_bytes(raw)
        boot = board.boot()
        assert boot.next() in set(Slot)
        boot.state()
        with contextlib.suppress(SlotError, BootError):
            boot.check(Slot.B, image)
