"""The arm64 machine of bench L3: U-Boot of ours, a signed FIT in each slot, a GPT disk.

:func:`argv` is the command line of device.md, section 4. The board's firmware is
``u-boot.bin`` and the control tree with the key, which a product would have in a place
that nothing but a signed update changes. The environment lies in two files of a FAT that
Linux never mounts: ``fw_setenv`` writes their bytes where they are.
"""

from __future__ import annotations

import functools
import re
import struct
import subprocess
import zlib
from collections.abc import Mapping
from pathlib import Path

from tests.bench import cache, disk, qemu, toolbox, uboot_build

MEMORY_MIB = 512
ENV = disk.Partition("sealift-env", disk.ESP.offset, disk.ESP.size)
PARTITIONS = (ENV, disk.SLOT_A, disk.SLOT_B, disk.DATA)
COPIES = ("uboot.env", "uboot-redund.env")
ENV_BYTES = 0x4000
FIT_OFFSET = 0x10000 * 512
FIT_BYTES_MAX = 0x10000 * 512

FACTORY = uboot_build.BOARD / "factory.env"
PREBUILT = "usr/lib/u-boot/qemu_arm64/u-boot.bin"
_NEEDED = (b"Bootlimit (%lu) exceeded", b"upgrade_available", b"uboot-redund.env")
_MACHINE = ("-cpu", "cortex-a53", "-m", str(MEMORY_MIB), "-smp", "1")


class FirmwareError(Exception):
    """A U-Boot that cannot do what the bench asks of it."""


def require_counting(firmware: Path) -> Path:
    """Refuse a U-Boot without a counter, or whose environment is somewhere else (D24).

    Raises:
        FirmwareError: such a one.
    """
    code = firmware.read_bytes()
    if lacking := [text.decode() for text in _NEEDED if text not in code]:
        raise FirmwareError(
            f"{firmware.name} lacks {', '.join(lacking)}: it cannot count"
        )
    return firmware


@functools.cache
def firmware() -> Path:
    """Our U-Boot, built if need be."""
    return require_counting(uboot_build.built() / "u-boot.bin")


def machine_words() -> list[str]:
    """The board itself: what decides the device tree that QEMU makes of it (D25).

    The firmware is part of it: QEMU leaves devices out where there is one.
    """
    program = toolbox.program("qemu-system-aarch64")
    roms = str(toolbox.file("usr/share/qemu"))
    words = ("-L", roms, *_MACHINE, "-nodefaults", "-bios", str(firmware()))
    return [program, *words]


def argv(place: Path, port: int | None = None) -> list[str]:
    """The machine over ``place``, which has ``disk.img`` and ``control.dtb``."""
    return [
        *machine_words(),
        *("-M", "virt", "-dtb", str(place / "control.dtb")),
        *qemu.drive(place / "disk.img", "d0", "if=none", "cache=writeback"),
        *("-device", "virtio-blk-device,drive=d0"),
        *qemu.network(port),
        *("-device", "virtio-net-device,netdev=n0"),
    ]


SHELL = ("-device", "virtio-serial-device", "-device", "virtconsole,chardev=shell")
"""The port of the bench's shell: a second serial one belongs to the secure world."""


def base_tree(into: Path) -> Path:
    """The device tree of the machine as QEMU makes it, without what is drawn anew."""
    dump = into.with_suffix(".dump")
    words = ("-M", f"virt,dtb-randomness=off,dumpdtb={dump}", "-display", "none")
    subprocess.run(
        [*machine_words(), *words],
        check=True,
        capture_output=True,
        env=toolbox.environment(),
    )
    disk.run("dtc", "-q", "-I", "dtb", "-O", "dtb", "-o", into, dump)
    dump.unlink()
    return into


# ── the environment ──────────────────────────────────────────────────────────────────
def compiled_in() -> dict[str, str]:
    """The environment that stands in U-Boot itself."""
    return _variables(uboot_build.ENVIRONMENT.read_text("utf-8"))


def factory(slot: str = "a") -> dict[str, str]:
    """What provisioning writes: what is compiled in, and one confirmed slot."""
    stored = _variables(FACTORY.read_text("utf-8"))
    step = {"slot": slot, "good": slot, "a_state": "", f"{slot}_state": "good"}
    return {**compiled_in(), **stored, **step}


def _variables(text: str) -> dict[str, str]:
    lines = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", "").splitlines()
    pairs = (line.partition("=") for line in lines if line)
    return {name: value for name, _, value in pairs}


def encoded(values: Mapping[str, str], counter: int) -> bytes:
    """One copy of a redundant environment."""
    lines = b"".join(f"{k}={v}\0".encode() for k, v in sorted(values.items()) if v)
    data = lines.ljust(ENV_BYTES - 5, b"\0")
    return struct.pack("<IB", zlib.crc32(data), counter) + data


def decoded(raw: bytes) -> dict[str, str] | None:
    """The values of a copy, ``None`` if its sum is wrong."""
    (total,) = struct.unpack_from("<I", raw)
    if zlib.crc32(raw[5:ENV_BYTES]) != total:
        return None
    lines = raw[5:ENV_BYTES].split(b"\0\0")[0].decode().split("\0")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


class Environment:
    """Both copies on a disk that no machine runs from, as U-Boot finds them by FAT."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._fat = disk.Esp(image, ENV)

    def provision(self, values: Mapping[str, str]) -> None:
        """Write both copies, once, into an empty FAT."""
        for counter, name in enumerate(COPIES, 1):
            self._fat.put(name, encoded(values, counter))

    def copies(self) -> list[dict[str, str] | None]:
        """What each copy holds."""
        return [decoded(self._fat.get(name)) for name in COPIES]

    def values(self) -> dict[str, str]:
        """The newer valid copy, which is the one that counts."""
        raws = [self._fat.get(name) for name in COPIES]
        valid = [(raw[4], found) for raw in raws if (found := decoded(raw)) is not None]
        assert valid, "both copies are torn"
        return max(valid, key=lambda pair: _newer(pair[0], [c for c, _ in valid]))[1]

    def change(self, **values: str) -> None:
        """As somebody would with a program of his own: both copies, any variable."""
        wanted = self.values() | values
        for at, (counter, name) in zip(
            self.offsets(), enumerate(COPIES, 1), strict=True
        ):
            assert name
            disk.write(self._image, ENV, encoded(wanted, counter), at)

    def tear(self, which: int) -> None:
        """One copy, written half-way."""
        at = self.offsets()[which]
        disk.write(self._image, ENV, bytes(ENV_BYTES // 2), at + ENV_BYTES // 2)
        disk.write(self._image, ENV, b"\xff" * 512, at + 512)

    def offsets(self) -> list[int]:
        """Where the copies begin in the partition: ``/etc/fw_env.config`` says so too."""
        return list(environment_offsets())


def _newer(counter: int, all_of_them: list[int]) -> int:
    """Order of counters that wrap from 255 to 0."""
    return counter + 256 if counter < 128 and max(all_of_them) > 192 else counter


@functools.cache
def environment_offsets() -> tuple[int, ...]:
    """Where a fresh FAT of this size puts the two files, which never move."""

    def find(into: Path) -> None:
        image = disk.format_disk(into / "disk.img", PARTITIONS)
        fat = disk.Esp(image, ENV)
        marks = [f"copy {n} ".encode().ljust(ENV_BYTES, b"#") for n in range(2)]
        for name, mark in zip(COPIES, marks, strict=True):
            fat.put(name, mark)
        raw = disk.read(image, ENV, 8 * disk.MIB)
        found = [raw.find(mark) for mark in marks]
        assert all(at > 0 and at % 512 == 0 for at in found), "not in one piece"
        (into / "offsets").write_text(" ".join(map(str, found)))
        image.unlink()

    key = cache.digest("1", list(COPIES), ENV_BYTES, ENV.size)
    text = (cache.built("fat-env", key, find) / "offsets").read_text()
    return tuple(map(int, text.split()))


def fw_env_config() -> str:
    """``/etc/fw_env.config``: one line per copy."""
    return "".join(
        f"/dev/vda1 {at:#x} {ENV_BYTES:#x}\n" for at in environment_offsets()
    )
