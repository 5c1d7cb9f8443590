"""A disk from which OVMF starts GRUB with our script; no root, no loop device.

The disk is one FAT without partitions: GRUB, the two files of ``boards/grub``, and
environment blocks. A block is then a place on the disk that the shipped boot control
writes through :class:`Sectors`, as a kernel would through a mount.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sealift.agent.boot.grub import BLOCK_BYTES, GrubBoot
from sealift.core.types import Slot
from tests.bench import toolbox
from tests.bench.qemu import Machine

BOARDS = Path(__file__).parents[2] / "boards" / "grub"
MODULES = (
    *("normal", "fat", "configfile", "loadenv", "test", "echo", "halt", "reboot"),
    *("minicmd", "true", "linux", "boot", "search", "search_fs_file"),
)
_START = b"search --file --set=root /grub/grub.cfg\nset prefix=($root)/grub\nnormal\n"
_KIB = 16 * 1024


def make_disk(path: Path, files: Mapping[str, bytes]) -> Path:
    """A disk with GRUB and these files, by their names below ``/``."""
    tree = path.parent / f"{path.name}.tree"
    whole = {
        "EFI/BOOT/BOOTX64.EFI": _grub(path.parent),
        "grub/sealift.cfg": (BOARDS / "sealift.cfg").read_bytes(),
        **files,
    }
    for name, content in whole.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    path.unlink(missing_ok=True)
    _run("mkfs.vfat", "-C", str(path), str(_KIB))
    for top in sorted(tree.iterdir()):
        _run("mcopy", "-s", "-i", str(path), str(top), "::/")
    return path


def read(disk: Path, name: str) -> bytes:
    """A file of the disk."""
    return _run("mtype", "-i", str(disk), f"::/{name}")


def start(disk: Path, place: Path) -> Machine:
    """The machine; OVMF without Secure Boot."""
    code = toolbox.file("usr/share/OVMF/OVMF_CODE_4M.fd")
    variables = place / "vars.fd"
    variables.write_bytes(toolbox.file("usr/share/OVMF/OVMF_VARS_4M.fd").read_bytes())
    words = (
        *("-M", "q35", "-cpu", "max", "-m", "256", "-smp", "1"),
        *("-nodefaults", "-net", "none"),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
        *("-drive", f"if=none,id=d0,format=raw,file={disk}"),
        *("-device", "virtio-blk-pci,drive=d0,bootindex=1"),
    )
    return Machine(place, [toolbox.program("qemu-system-x86_64"), *words], shell=None)


class Sectors:
    """:class:`~sealift.agent.inplace.Block` where a block of the disk lies."""

    def __init__(self, disk: Path, name: str) -> None:
        content = read(disk, name)
        assert len(content) == BLOCK_BYTES
        raw = disk.read_bytes()
        self._offset = raw.index(content)
        assert self._offset % 512 == 0
        assert raw.find(content, self._offset + 1) < 0, (
            "one place, else it is another's"
        )
        self._disk = disk

    def read(self, limit: int) -> bytes | None:
        with self._disk.open("rb") as disk:
            return os.pread(disk.fileno(), min(limit, BLOCK_BYTES), self._offset)

    def settle(self) -> None:
        """Whoever writes here is not killed."""

    def write(self, data: bytes) -> None:
        assert len(data) == BLOCK_BYTES
        with self._disk.open("r+b") as disk:
            os.pwrite(disk.fileno(), data, self._offset)


def control(disk: Path, running: Slot) -> GrubBoot:
    """The shipped boot control over the blocks of the disk."""
    return GrubBoot(
        Sectors(disk, "grub/grubenv"),
        Sectors(disk, "grub/grubenv.home"),
        lambda: running,
        lambda: "boot",
    )


def _grub(place: Path) -> bytes:
    """GRUB as one EFI program."""
    early, into = place / "early.cfg", place / "grub.efi"
    early.write_bytes(_START)
    modules = toolbox.file("usr/lib/grub/x86_64-efi")
    _run(
        *("grub-mkimage", "-O", "x86_64-efi", "-p", "/grub", "-d", str(modules)),
        *("-c", str(early), "-o", str(into), *MODULES),
    )
    return into.read_bytes()


def _run(name: str, *words: str) -> bytes:
    program = toolbox.program(name)
    return subprocess.run(
        [program, *words], check=True, capture_output=True, env=toolbox.environment()
    ).stdout
