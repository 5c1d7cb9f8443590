"""The EFI system partition mounted and unmounted by programs, as the kernel does it.

The file system is ext4, for kernels of test machines have no vfat; what a vfat makes of
cuts is shown in tests/bench.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealift.agent.boot.systemd_boot import SystemdBoot
from sealift.agent.clock import SystemClock
from sealift.agent.efivars import EfiVariables
from sealift.agent.esp import Directory, Programs
from sealift.core.types import Slot
from sealift.sim.flash import Door, Flash, FlashSlot
from sealift.sim.loaders.uki import bootable_image
from tests.bench import toolbox

MOUNT, UNMOUNT = shutil.which("mount"), shutil.which("umount")
CHECK = shutil.which("e2fsck", path="/usr/sbin:/sbin")
"""The machine's own: the programs of an agent get no library path."""


class Board:
    """An image of a partition, and where it is mounted while it is used."""

    def __init__(self, place: Path) -> None:
        self.image, self.point = place / "esp.img", place / "esp"
        self.variables = place / "variables"
        self.point.mkdir()
        self.variables.mkdir()
        self.image.touch()
        os.truncate(self.image, 32 << 20)
        subprocess.run(
            [toolbox.program("mkfs.ext4"), "-q", str(self.image)],
            check=True,
            env=toolbox.environment(),
        )

    def mount(self, *words: str) -> None:
        """By hand, as somebody did who was killed behind it."""
        argv = [str(MOUNT), *words, "-o", "loop", str(self.image), str(self.point)]
        subprocess.run(argv, check=True)

    def unmount(self) -> int:
        """Its exit status."""
        argv = [str(UNMOUNT), str(self.point)]
        return subprocess.run(argv, check=False, capture_output=True).returncode

    def partition(self) -> Directory:
        programs = Programs(
            SystemClock(),
            check=[CHECK, "-p", str(self.image)] if CHECK else [],
            mount=[str(MOUNT), "-o", "loop", str(self.image), str(self.point)],
            unmount=[str(UNMOUNT), str(self.point)],
        )
        return Directory(str(self.point), programs)

    def boot(self) -> SystemdBoot:
        variables = EfiVariables(str(self.variables))
        return SystemdBoot(variables, self.partition(), lambda: Slot.A, lambda: "1")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    if os.geteuid() != 0 or MOUNT is None or shutil.which("losetup") is None:
        pytest.skip("mounting needs root, mount and losetup (package mount)")
    board = Board(tmp_path)
    board.mount()
    (board.point / "EFI" / "Linux").mkdir(parents=True)
    content, _ = bootable_image("1")
    (board.point / "EFI" / "Linux" / "sealift-a.efi").write_bytes(content[4096:])
    assert board.unmount() == 0
    yield board
    if os.path.ismount(board.point):
        board.unmount()


def test_device_D11_mounted_by_the_kernel_only_while_in_use(board: Board) -> None:
    """Placed, looked at, armed; between the steps nothing is mounted."""
    content, image = bootable_image("2")
    flash = Flash(Door())
    flash.make("slot.b", content)
    slot = FlashSlot(flash, "slot.b", writable=False)
    steps: list[Callable[[], None]] = [
        lambda: board.boot().mark_writing(Slot.B),
        lambda: board.boot().place(Slot.B, image, slot),
        lambda: board.boot().check(Slot.B, image),
        lambda: board.boot().set_next(Slot.B, 1),
    ]
    for step in steps:
        step()
        assert not os.path.ismount(board.point)
        assert not list(board.point.iterdir()), "nothing was written below the mount"
    assert board.boot().next() is Slot.B


@pytest.mark.parametrize("words", [(), ("-r",)], ids=["to write", "to look"])
def test_device_D11_a_mount_left_behind_is_taken_over(
    board: Board, words: tuple[str, ...]
) -> None:
    """Whoever was killed had it mounted, perhaps read-only: unmounted, then as needed."""
    board.mount(*words)
    board.boot().mark_writing(Slot.B)
    assert not os.path.ismount(board.point)
    assert board.boot().state().slots[Slot.A] == "good"


def test_nobody_unmounts_it_while_it_is_used(board: Board) -> None:
    """The kernel refuses: a directory of it is held open."""
    with board.partition().using(write=True):
        assert board.unmount() != 0
    assert not os.path.ismount(board.point)
