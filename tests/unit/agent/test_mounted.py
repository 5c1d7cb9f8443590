"""Which slot runs, by what the kernel says in /proc and /sys: trees of files here."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.agent.mounted import Mounted, block_device, root_hash
from sealift.core.errors import BootError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Mapping

PATHS = {Slot.A: "/dev/vda2", Slot.B: "/dev/vda3"}
NUMBERS: Mapping[str, str | None] = {"/dev/vda2": "254:2", "/dev/vda3": "254:3"}
HASH = "5c" * 32


class Kernel:
    """A machine's /proc and /sys in a directory."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.sys = directory / "proc", directory / "sys"
        (self.proc / "self").mkdir(parents=True)
        (self.sys / "dev/block").mkdir(parents=True)
        self.lines: list[str] = []

    def mount(
        self, device: str, point: str = "/", number: int = 20, parent: int = 1
    ) -> None:
        self.lines.append(
            f"{number} {parent} {device} / {point} ro,relatime shared:1 - "
            "squashfs /dev/root ro,errors=continue"
        )
        (self.proc / "self/mountinfo").write_text("\n".join(self.lines) + "\n")

    def device(self, device: str, *below: str) -> None:
        slaves = self.sys / "dev/block" / device / "slaves"
        slaves.mkdir(parents=True)
        for at, number in enumerate(below):
            (slaves / f"disk{at}").mkdir()
            (slaves / f"disk{at}/dev").write_text(f"{number}\n")

    def mounted(
        self, root: str = "/", numbers: Mapping[str, str | None] = NUMBERS
    ) -> Mounted:
        where = str(self.proc), str(self.sys)
        return Mounted(root, PATHS, *where, number=numbers.__getitem__)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.mark.parametrize(("device", "slot"), [("254:2", Slot.A), ("254:3", Slot.B)])
def test_a_plain_partition(kernel: Kernel, device: str, slot: Slot) -> None:
    """The root is the slot itself; a partition has no slaves in sysfs."""
    kernel.mount("0:25", "/proc", 21, 20)
    kernel.mount(device)
    assert kernel.mounted().slot() is slot


def test_verity_over_crypt_over_a_partition(kernel: Kernel) -> None:
    """The chain is followed down; data and hash tree on one partition are one."""
    kernel.mount("253:1")
    kernel.device("253:1", "253:0", "253:0")
    kernel.device("253:0", "254:3")
    assert kernel.mounted().slot() is Slot.B


def test_slots_that_are_themselves_mapped(kernel: Kernel) -> None:
    """Two logical volumes on one disk: the volume decides, not the disk below both."""
    kernel.mount("253:5")
    kernel.device("253:5", "253:2")
    kernel.device("253:2", "254:9")
    kernel.device("253:3", "254:9")
    numbers = {"/dev/vda2": "253:2", "/dev/vda3": "253:3"}
    assert kernel.mounted(numbers=numbers).slot() is Slot.A


def test_what_is_mounted_on_top_counts(kernel: Kernel) -> None:
    """Two mounts at one point: the one that covers, wherever its line stands."""
    kernel.mount("254:3", number=31, parent=30)
    kernel.mount("254:2", number=30, parent=1)
    assert kernel.mounted().slot() is Slot.B


def test_a_root_of_another_name(kernel: Kernel) -> None:
    """Below an overlay the slot is mounted elsewhere; blanks in its name are octal."""
    kernel.mount("0:40", "/", 20)
    kernel.mount("254:3", r"/run/the\040slot", 22, 20)
    assert kernel.mounted("/run/the slot").slot() is Slot.B


@pytest.mark.parametrize(
    ("device", "below", "words"),
    [
        ("0:40", (), "no block device"),
        ("8:1", (), "neither slot"),
        ("253:0", ("254:2", "254:3"), "both slots"),
    ],
)
def test_nothing_is_guessed(
    kernel: Kernel, device: str, below: tuple[str, ...], words: str
) -> None:
    """An overlay, a foreign disk, a mirror of both: device.boot with a hint."""
    kernel.mount(device)
    kernel.device(device, *below)
    with pytest.raises(BootError, match=words) as refused:
        kernel.mounted().slot()
    assert "[boot] root" in (refused.value.hint or "")


def test_slots_that_are_files_are_no_devices(kernel: Kernel) -> None:
    """And a device number of 0 is none either."""
    kernel.mount("254:2")
    none: dict[str, str | None] = {"/dev/vda2": None, "/dev/vda3": None}
    with pytest.raises(BootError, match="a is no device, b is no device"):
        kernel.mounted(numbers=none).slot()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        "20 1 254:2\n",
        "20 1 x:y / / ro - squashfs x ro\n",
        "\xff\x00\n" * 40,
        "20 1 254:2 / /other ro - squashfs x ro\n",
    ],
)
def test_a_table_of_mounts_without_the_root(kernel: Kernel, text: str) -> None:
    """Garbage is no mount."""
    (kernel.proc / "self/mountinfo").write_text(text)
    with pytest.raises(BootError, match="no mount point"):
        kernel.mounted().slot()


def test_files_that_are_missing_or_too_long(kernel: Kernel) -> None:
    """Bounded, and device.boot: never a traceback."""
    with pytest.raises(BootError, match="mountinfo"):
        kernel.mounted().slot()
    with (kernel.proc / "self/mountinfo").open("w") as file:
        file.truncate(3 << 20)
    with pytest.raises(BootError, match="longer"):
        kernel.mounted().slot()


def test_a_ring_of_devices_ends(kernel: Kernel) -> None:
    """A sysfs that lies in a circle, or without end, hangs nobody."""
    kernel.mount("253:0")
    kernel.device("253:0", "253:1")
    kernel.device("253:1", "253:0")
    with pytest.raises(BootError, match="neither slot"):
        kernel.mounted().slot()
    for at in range(2, 90):
        kernel.device(f"253:{at}", f"253:{at + 1}")
    kernel.lines.clear()
    kernel.mount("253:2")
    with pytest.raises(BootError, match="more than 64 devices"):
        kernel.mounted().slot()


def test_sysfs_without_a_number(kernel: Kernel) -> None:
    """What lies below has to have one."""
    kernel.mount("253:0")
    kernel.device("253:0", "what?")
    with pytest.raises(BootError, match="no number"):
        kernel.mounted().slot()


def test_real_paths(tmp_path: Path) -> None:
    """A file is no block device, what is missing is an error; a real one has a number."""
    (tmp_path / "slot").touch()
    assert block_device(str(tmp_path / "slot")) is None
    with pytest.raises(BootError, match="No such file"):
        block_device(str(tmp_path / "none"))
    for path in Path("/dev").iterdir():
        if stat.S_ISBLK(path.lstat().st_mode):
            numbers = (block_device(str(path)) or "").split(":")
            assert [int(it) >= 0 for it in numbers] == [True, True]


def test_this_machine_answers_without_a_crash() -> None:
    """The real /proc and /sys, whatever lies below this root."""
    slots = {Slot.A: "/dev/null", Slot.B: "/dev/zero"}
    with pytest.raises(BootError):
        Mounted("/", slots).slot()
    assert root_hash() is None or len(root_hash() or "") == 64


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"console=ttyS0 roothash={HASH} panic=3\n", HASH),
        (f"roothash={HASH} roothash={HASH}", HASH),
        (f"roothash={HASH} roothash={'00' * 32}", None),
        ("roothash=12", None),
        (f"roothash={HASH.upper()}", None),
        ("root=/dev/vda2", None),
        ("", None),
    ],
)
def test_the_root_hash_of_the_command_line(
    kernel: Kernel, line: str, found: str | None
) -> None:
    """One, in lower hex, or none: two that differ prove nothing."""
    (kernel.proc / "cmdline").write_text(line)
    assert root_hash(str(kernel.proc)) == found
