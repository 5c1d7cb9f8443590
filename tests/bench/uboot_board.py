"""One arm64 device of bench L3: a disk as the factory leaves it, and its machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.bench import disk, qemu, uboot, uboot_release
from tests.bench.uboot_release import Release

UP_SECONDS = 120.0
SLOTS = ("/dev/vda2", "/dev/vda3")
BOOT = {"kind": '"uboot"', "restart": '["/sbin/reboot"]', "verified": "true"}
"""Table ``[boot]`` of its agent."""
STARTS = r"sealift: slot ([ab]), trial ([01])"
"""What our U-Boot says before it looks at a slot."""


def factory(
    place: Path, running: Release, device: Path | None = None, slot: str = "a"
) -> Path:
    """``place/disk.img`` and ``place/control.dtb`` as a factory leaves them; the disk.

    ``running`` is confirmed in ``slot``, the other one is empty. ``device`` is what lies
    on the data partition, ``agent/agent.toml`` in it; without it no agent runs.
    """
    place.mkdir(parents=True, exist_ok=True)
    path = disk.format_disk(place / "disk.img", uboot.PARTITIONS)
    uboot.Environment(path).provision(uboot.factory(slot))
    put(path, slot, running.image)
    tree = place / "data"
    if device is not None:
        shutil.copytree(device, tree)
    tree.mkdir(exist_ok=True)
    disk.write_data(path, tree, place)
    shutil.rmtree(tree)
    shutil.copyfile(uboot_release.control(), place / "control.dtb")
    return path


def put(path: Path, slot: str, content: bytes | Path) -> None:
    """A whole image into a slot, as somebody with the disk in hand would."""
    disk.write(path, disk.SLOTS[slot], content)


def on_trial(path: Path, slot: str = "b") -> None:
    """The environment as the agent leaves it when it arms ``slot``."""
    step = {"slot": slot, "bootcount": "0", "upgrade_available": "1"}
    uboot.Environment(path).change(**step, **{f"{slot}_state": "trial"})


def copy(source: Path, place: Path) -> Path:
    """The disk and the control tree of another place, holes kept; the disk."""
    place.mkdir(parents=True, exist_ok=True)
    words = ("cp", "--sparse=always", "--reflink=auto")
    for name in ("disk.img", "control.dtb"):
        subprocess.run([*words, source / name, place / name], check=True)
    return place / "disk.img"


class Board(qemu.Machine):
    """The machine of ``place``, which has ``disk.img`` and ``control.dtb``."""

    def __init__(
        self, place: Path, *, port: int | None = None, once: bool = False
    ) -> None:
        more = ["-no-reboot"] if once else []
        super().__init__(place, [*uboot.argv(place, port), *more], shell=uboot.SHELL)
        self.disk = place / "disk.img"

    def tries(self, seconds: float = UP_SECONDS) -> tuple[str, bool]:
        """Wait for the next start by U-Boot: its slot, and whether that is on trial."""
        found = self.expect(STARTS, seconds)
        return found[1], found[2] == "1"

    def runs(self, seconds: float = UP_SECONDS, *, never: str = "") -> tuple[str, str]:
        """Wait for the next start of a system: its slot and its release."""
        root = self.expect(r"sealift: root sealift-([ab]) ", seconds, never=never)
        what = self.expect(r"bench: release (\S+) up", seconds)
        return root[1], what[1]

    def up(self, seconds: float = UP_SECONDS, *, never: str = "") -> tuple[str, str]:
        """The same, and until its shell answers."""
        found = self.runs(seconds, never=never)
        self.settle()
        return found

    @property
    def environment(self) -> uboot.Environment:
        """The environment on the disk; only while the machine is off."""
        assert not self.alive
        return uboot.Environment(self.disk)

    def off(self, seconds: float = 60.0) -> None:
        """Ask the running system to power off, and wait for it."""
        self.run("poweroff")
        self.wait_off(seconds)
