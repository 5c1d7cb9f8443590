"""GRUB's environment block, byte for byte; what GRUB itself does is in tests/bench."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.boot.grub import (
    BLOCK_BYTES,
    SIGNATURE,
    GrubBoot,
    Store,
    countable,
    pack,
    unpack,
)
from sealift.agent.inplace import BlockFile
from sealift.core.errors import BootError
from sealift.core.types import Slot
from sealift.sim.loaders.grub import GrubWorld
from tests.bench import toolbox
from tests.unit.agent.boot.small_boards import GrubOnDisk

ARMED = (
    SIGNATURE + b"good=a\ntrial=b\ntries=2\na_state=g\nb_state=t\n"
).ljust(BLOCK_BYTES, b"#")  # fmt: skip


@pytest.fixture
def board(tmp_path: Path) -> GrubOnDisk:
    board = GrubOnDisk(tmp_path)
    board.start()
    return board


def armed(board: GrubOnDisk) -> Path:
    board.boot().mark_writing(Slot.B)
    board.boot().set_next(Slot.B, 2)
    return board.directory / "grubenv"


def test_the_block_is_as_documented(board: GrubOnDisk) -> None:
    """1024 bytes, ours first, one character each."""
    assert armed(board).read_bytes() == ARMED
    home = (board.directory / "grubenv.home").read_bytes()
    assert home == (SIGNATURE + b"good=a\n").ljust(BLOCK_BYTES, b"#")


def test_grub_editenv_reads_what_we_wrote(board: GrubOnDisk) -> None:
    """And we read what it wrote."""
    path = armed(board)

    def editenv(*words: str) -> str:
        return subprocess.run(
            [toolbox.program("grub-editenv"), str(path), *words],
            check=True,
            capture_output=True,
            text=True,
            env=toolbox.environment(),
        ).stdout

    listed = ["good=a", "trial=b", "tries=2", "a_state=g", "b_state=t"]
    assert editenv("list").splitlines() == listed
    editenv("set", "tries=1", "saved_entry=a \\ b")
    assert board.boot().state().slots[Slot.B] == "trial(1)"
    board.boot().set_next(Slot.B, 3)
    assert "saved_entry=a \\ b" in editenv("list"), "what is another's stays"


def test_a_board_is_provisioned_with_grub_editenv(tmp_path: Path) -> None:
    """Two calls per block: then ``state`` has nothing to remark."""
    for name in ("grubenv", "grubenv.home"):
        values = ["good=a", "trial=-", "tries=0"] if name == "grubenv" else ["good=a"]
        for words in (["create"], ["set", *values]):
            subprocess.run(
                [toolbox.program("grub-editenv"), str(tmp_path / name), *words],
                check=True,
                env=toolbox.environment(),
            )
    env, home = (
        BlockFile(str(tmp_path / it), "") for it in ("grubenv", "grubenv.home")
    )
    boot = GrubBoot(env, home, lambda: Slot.A, lambda: "1")
    state = boot.state()
    assert state.slots == {Slot.A: "good", Slot.B: "empty"}
    assert not state.remarks
    boot.mark_writing(Slot.B)
    assert boot.state().slots[Slot.B] == "writing"


def test_device_D26_in_place_and_never_truncated(board: GrubOnDisk) -> None:
    """The same file, the same length, at each moment an observer looks."""
    path = armed(board)
    before = path.stat()
    held = path.open("rb")
    board.boot().set_next(Slot.A, 1)
    board.boot().mark_writing(Slot.B)
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, BLOCK_BYTES)
    assert held.read() == path.read_bytes()
    held.close()


def test_device_D26_ours_lie_in_the_first_sector(board: GrubOnDisk) -> None:
    """However much others have put there."""
    path = board.directory / "grubenv"
    others = {f"other{at}": b"x" * 60 for at in range(14)}
    path.write_bytes(pack({**others, "good": b"a"}))
    board.boot().set_next(Slot.B, 9)
    raw = path.read_bytes()
    assert raw.index(b"b_state=") < 512
    assert len(raw) == BLOCK_BYTES
    assert raw.count(b"other") == 14


@pytest.mark.parametrize("home", list(Slot))
@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"# GRUB",
        ARMED[:40].replace(b"good=a", b"good=z"),
        bytes(1024),
        b"\xff" * 1024,
    ],
)
def test_device_D26_a_damaged_block_and_home_boots(
    tmp_path: Path, home: Slot, damaged: bytes
) -> None:
    """Empty, cut, zeros, erased: the second block knows; ``state`` says so; it heals."""
    board = GrubOnDisk(tmp_path)
    board.start()
    if home is Slot.B:
        armed(board)
        assert board.start() is Slot.B
        board.boot().mark_good()
    (tmp_path / "grubenv").write_bytes(damaged)
    assert board.start() is home
    [remark] = board.boot().state().remarks
    assert f"slot {home} boots" in remark
    board.boot().mark_writing(home.other)
    assert not board.boot().state().remarks
    assert len((tmp_path / "grubenv").read_bytes()) == BLOCK_BYTES


def test_device_D26_an_overlong_block_is_told_and_shortened(board: GrubOnDisk) -> None:
    """Home boots all the while."""
    path = armed(board)
    path.write_bytes(path.read_bytes() + b"#" * 700)
    assert any("1724 bytes" in it for it in board.boot().state().remarks)
    assert board.boot().next() is Slot.B
    board.boot().set_next(Slot.A, 1)
    assert path.stat().st_size == BLOCK_BYTES
    assert board.start() is Slot.A


def test_a_block_grub_cannot_count_in_starts_home(board: GrubOnDisk) -> None:
    """``next`` says what GRUB does: without counting it starts no trial."""
    path = armed(board)
    path.write_bytes(ARMED[:512] + bytes(512))
    assert not countable(path.read_bytes())
    assert board.boot().next() is Slot.A
    assert board.start() is Slot.A
    assert any("cannot count" in it for it in board.boot().state().remarks)


def test_a_block_that_is_not_there_is_not_made(board: GrubOnDisk) -> None:
    """A new file lies somewhere else than GRUB looks: device.boot, with the command."""
    path = board.directory / "grubenv"
    path.unlink()
    assert board.start() is Slot.A
    with pytest.raises(BootError) as refused:
        board.boot().set_next(Slot.B, 1)
    assert "grub-editenv" in (refused.value.hint or "")
    assert not path.exists()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_only_a_regular_file_is_a_block(tmp_path: Path, kind: str) -> None:
    """Nothing hangs and nothing is followed."""
    path, elsewhere = tmp_path / "grubenv", tmp_path / "elsewhere"
    elsewhere.write_bytes(ARMED)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    block = BlockFile(str(path), "grub-editenv")
    with pytest.raises(BootError):
        block.write(ARMED.replace(b"tries=2", b"tries=1"))
    assert elsewhere.read_bytes() == ARMED


def test_bytes_of_two_blocks_in_any_mixture_are_a_block() -> None:
    """A sector torn inside: whatever was old and new, home or the trial starts."""
    chance = random.Random(1)
    old = pack(Store(Slot.A, states={Slot.A: "g", Slot.B: "w"}).lines())
    steps = [
        Store(Slot.A, Slot.B, 3, {Slot.A: "g", Slot.B: "t"}),
        Store(Slot.B, None, 0, {Slot.A: "g", Slot.B: "g"}),
    ]
    for step in steps:
        new = pack(step.lines())
        for _ in range(300):
            mixed = bytes(chance.choice(pair) for pair in zip(old, new, strict=True))
            found = Store.of(unpack(mixed) or {})
            assert found is not None
            assert found.good in {Slot.A, step.good}
            assert found.trial in {None, Slot.B}
        old = new


@given(st.binary(max_size=1500))
def test_no_block_crashes_us(raw: bytes) -> None:
    """What GRUB might read, and what it reads from our own bytes."""
    found = unpack(SIGNATURE + raw)
    assert found is not None
    world = GrubWorld()
    world.put("grubenv", SIGNATURE + raw)
    assert world.boot().next() in set(Slot)
    world.boot().state()
    world.boot().set_next(Slot.B, 1)
    assert unpack(world.block("grubenv").read(2000))
