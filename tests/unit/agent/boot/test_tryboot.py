"""The Raspberry Pi's ``autoboot.txt``: two bytes that change, and a flag at the restart."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sealift.agent.boot.tryboot import FileNote, TryBoot, chosen, understood
from sealift.core.errors import BootError
from sealift.core.types import Slot
from sealift.sim.loaders.tryboot import AUTOBOOT, TryBootWorld
from tests.unit.agent.boot.small_boards import PARTITIONS, TryBootOnDisk

EXAMPLE = Path(__file__).parents[4] / "boards" / "raspberrypi" / "autoboot.txt"


@pytest.fixture
def board(tmp_path: Path) -> TryBootOnDisk:
    board = TryBootOnDisk(tmp_path)
    board.start()
    return board


def content(board: TryBootOnDisk) -> bytes:
    return (board.directory / "autoboot.txt").read_bytes()


def test_an_update_byte_by_byte(board: TryBootOnDisk) -> None:
    """Arming changes the second number, confirming the first; the file stays as long."""
    inode = (board.directory / "autoboot.txt").stat().st_ino
    board.boot().mark_writing(Slot.B)
    assert content(board) == AUTOBOOT
    board.boot().set_next(Slot.B, 5)
    assert content(board) == AUTOBOOT.replace(
        b"[tryboot]\nboot_partition=2", b"[tryboot]\nboot_partition=3"
    )
    assert board.boot().words() == ("0 tryboot",)
    board.restarting()
    assert board.boot().words() == ()
    assert board.start() is Slot.B
    assert board.boot().state().slots == {Slot.A: "good", Slot.B: "trial(0)"}
    board.boot().mark_good()
    assert content(board) == AUTOBOOT.replace(b"=2", b"=3")
    assert (board.directory / "autoboot.txt").stat().st_ino == inode


def test_the_example_is_what_the_board_starts_with() -> None:
    """``boards/raspberrypi/autoboot.txt``: at most 512 bytes, slot a twice."""
    found = understood(EXAMPLE.read_bytes())
    assert (found.home, found.trial) == (2, 2)


def test_an_armed_slot_does_not_survive_a_loss_of_power(board: TryBootOnDisk) -> None:
    """The flag lives in the chip: home starts, and nobody is armed any more (not B1)."""
    board.boot().mark_writing(Slot.B)
    board.boot().set_next(Slot.B, 1)
    (board.directory / "note").unlink()  # a tmpfs
    assert board.boot().next() is Slot.A
    assert board.start() is Slot.A


def test_a_note_of_another_boot_is_none(board: TryBootOnDisk) -> None:
    """Also where the note lies on a disk: it names the boot it belongs to."""
    board.boot().mark_writing(Slot.B)
    board.boot().set_next(Slot.B, 1)
    board.start()
    assert (board.directory / "note").exists()
    assert board.boot().next() is Slot.A
    assert board.boot().words() == ()


@pytest.mark.parametrize(
    "raw", [b"", b"slot=c\nboot_id=boot-1\n", b"\xff\xfe", b"slot=b"]
)
def test_a_note_of_another_form_is_none(board: TryBootOnDisk, raw: bytes) -> None:
    """And the next arming replaces it."""
    (board.directory / "note").write_bytes(raw)
    assert board.boot().next() is Slot.A
    board.boot().set_next(Slot.B, 1)
    assert board.boot().next() is Slot.B


def test_comments_and_other_lines_stay(board: TryBootOnDisk) -> None:
    """Only the two digits are ours."""
    raw = b"# ours\r\n[all]\r\ntryboot_a_b=1\r\nboot_partition=2\r\n[cm4]\r\nx=1\r\n[tryboot]\r\nboot_partition=2\r\n# end"
    board.put(raw)
    board.boot().set_next(Slot.B, 1)
    assert content(board) == raw[:-7].rstrip(b"2\r\n") + b"3\r\n# end"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[all]\ntryboot_a_b=1\nboot_partition=2\n",
        b"[all]\nboot_partition=2\n[tryboot]\nboot_partition=3\n",
        b"[all]\ntryboot_a_b=0\nboot_partition=2\n[tryboot]\nboot_partition=3\n",
        b"[all]\ntryboot_a_b=1\nboot_partition=12\n[tryboot]\nboot_partition=3\n",
        b"[all]\ntryboot_a_b=1\nboot_partition= 2\n[tryboot]\nboot_partition=3\n",
        AUTOBOOT + b"[all]\nboot_partition=2\n",
        AUTOBOOT.replace(b"=2", b"=7"),
        AUTOBOOT + b"#" * 512,
        b"\xff" * 60,
    ],
)
def test_any_other_file_is_refused_and_told(board: TryBootOnDisk, raw: bytes) -> None:
    """device.boot from every verb; ``state`` has it as missing, or refuses as well."""
    board.put(raw)
    for verb in (
        lambda: board.boot().mark_writing(Slot.B),
        lambda: board.boot().set_next(Slot.B, 1),
        lambda: board.boot().mark_good(),
        lambda: board.boot().next(),
    ):
        with pytest.raises(BootError) as refused:
            verb()
        assert refused.value.hint
    assert board.boot().state().missing
    assert content(board) == raw


def test_a_missing_file_is_refused(board: TryBootOnDisk) -> None:
    """It is not made: the firmware would not find it where it looks."""
    (board.directory / "autoboot.txt").unlink()
    with pytest.raises(BootError):
        board.boot().set_next(Slot.B, 1)
    assert not (board.directory / "autoboot.txt").exists()


def test_the_firmware_is_asked_before_anything_is_confirmed() -> None:
    """What is mounted is what it booted, or nothing is confirmed (device-D2)."""
    world = TryBootWorld()
    boot = TryBoot(
        world.file(),
        world.note,
        PARTITIONS,
        lambda: Slot.B,
        lambda: "1",
        booted=lambda: 2,
    )
    with pytest.raises(BootError, match="mounted"):
        boot.mark_good()
    assert any("firmware booted 2" in it for it in boot.state().remarks)


def test_what_the_firmware_left_in_the_device_tree(tmp_path: Path) -> None:
    """Four bytes, the high one first; anything else says nothing."""
    (tmp_path / "partition").write_bytes(b"\0\0\0\3")
    (tmp_path / "tryboot").write_bytes(b"\1")
    assert chosen("partition", str(tmp_path)) == 3
    assert chosen("tryboot", str(tmp_path)) is None
    assert chosen("none", str(tmp_path)) is None


def test_a_note_that_cannot_be_written_arms_nobody(tmp_path: Path) -> None:
    """device.boot, and home is next."""
    world = TryBootWorld()
    note = FileNote(str(tmp_path / "missing" / "note"))
    boot = TryBoot(world.file(), note, PARTITIONS, lambda: Slot.A, lambda: "1")
    with pytest.raises(BootError) as refused:
        boot.set_next(Slot.B, 1)
    assert "tryboot_note" in (refused.value.hint or "")
    assert boot.next() is Slot.A


def test_no_file_crashes_us() -> None:
    """Bent at any bit: two numbers, or device.boot."""
    chance = random.Random(5)
    for _ in range(500):
        bent = bytearray(AUTOBOOT)
        bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        try:
            found = understood(bytes(bent))
        except BootError:
            continue
        assert 0 <= found.home <= 9
        assert 0 <= found.trial <= 9
