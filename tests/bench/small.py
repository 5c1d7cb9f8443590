"""A small disk laid out like a UEFI board's: an EFI partition, two slots, a marks region.

Boot files are PE files of a release and nothing that runs: what the judge and the agent
read of them is there. So a verb of a boot control can be recorded in seconds.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sealift.core import bootable, verity
from sealift.core.types import VERITY_BLOCK
from tests.bench import gpt, toolbox
from tests.bench.judge import Signed

ESP_MIB, SLOT_MIB, DATA_MIB, MARKS_MIB = 40, 4, 8, 1
SALT = bytes(range(32))
_BLOCKS = 600
_BOOT_BYTES = 192 * 1024


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the small disk: its image, and where the boot file lies in it."""

    signed: Signed
    boot: bytes
    offset: int
    root_hash: bytes

    @property
    def image(self) -> bytes:
        """The bytes of the slot."""
        return self.signed.image.read_bytes()


def release(place: Path, number: int, *, boot_bytes: int = _BOOT_BYTES) -> Release:
    """A release with this number, written below ``place``; the same every time."""
    data = b"".join(
        hashlib.sha256(b"%d %d" % (number, at)).digest() * (VERITY_BLOCK // 32)
        for at in range(_BLOCKS)
    )
    tree = bytearray(verity.tree_blocks(_BLOCKS) * VERITY_BLOCK)

    def write(offset: int, piece: bytes) -> None:
        tree[offset : offset + len(piece)] = piece

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    root = verity.build(read, _BLOCKS, SALT, write)
    superblock = verity.Superblock(_BLOCKS, SALT, bytes(16)).encode()
    command = " ".join(bootable.words(root, SALT, _BLOCKS))
    boot = _boot_file(number, command, boot_bytes)
    head = data + superblock + tree
    image = place / f"release-{number}.img"
    image.write_bytes(head + boot)
    digest = hashlib.sha256(boot).digest()
    signed = Signed(f"os-{number}.img", image, digest, _BLOCKS)
    return Release(signed, boot, len(head), root)


def disk(
    place: Path,
    slots: dict[str, Release],
    boot_files: dict[str, bytes],
    *,
    bits: int = 32,
    data: str = "",
) -> Path:
    """A disk with these slots filled and these files on the EFI partition.

    ``data`` are features of an ext4 in the data partition, which else stays empty.
    """
    sizes = {"esp": ESP_MIB, "sealift-a": SLOT_MIB, "sealift-b": SLOT_MIB}
    sizes |= {"sealift-data": DATA_MIB, "marks": MARKS_MIB}
    found = place / "disk.img"
    with found.open("wb") as file:
        file.truncate((sum(sizes.values()) + 4) << 20)
    rows = [f"size={size}MiB, name={name}" for name, size in sizes.items()]
    _run(["sfdisk", "-q", str(found)], "\n".join(["label: gpt", *rows]))
    partitions = gpt.of_file(found)
    esp = place / "esp.img"
    with esp.open("wb") as file:
        file.truncate(ESP_MIB << 20)
    _run(["mkfs.vfat", "-F", str(bits), "-s", "1", "-i", "5EA11F70", str(esp)])
    _run(["mmd", "-i", str(esp), "::EFI", "::EFI/Linux", "::EFI/sealift", "::EFI/BOOT"])
    for name, content in boot_files.items():
        piece = place / "piece"
        piece.write_bytes(content)
        _run(["mcopy", "-i", str(esp), str(piece), f"::{name}"])
    contents = {"esp": esp.read_bytes()}
    contents |= {f"sealift-{slot}": it.image for slot, it in slots.items()}
    if data:
        made = place / "data.img"
        with made.open("wb") as file:
            file.truncate(DATA_MIB << 20)
        _run(["mkfs.ext4", "-q", "-b", "1024", "-O", data, str(made)])
        contents["sealift-data"] = made.read_bytes()
    with found.open("r+b") as file:
        for name, content in contents.items():
            file.seek(partitions[name][0] * gpt.SECTOR)
            file.write(content)
    return found


def _boot_file(number: int, command: str, size: int) -> bytes:
    """A PE file with the sections of a unified kernel image, of this many bytes."""
    version = f"ID=sealift\nIMAGE_ID=small\nIMAGE_VERSION={number}.0.0\n"
    sections = [
        (b".osrel", version.encode()),
        (b".cmdline", command.encode() + b"\0"),
        (b".linux", b""),
    ]
    at = 0x400
    optional = struct.pack("<H58xI44xI", 0x20B, 0x400, 16).ljust(240, b"\0")
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack(
        "<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 240, 0x22
    )
    head += optional
    body = b""
    for name, content in sections:
        room = size - at if name == b".linux" else -(-len(content) // 512) * 512
        fill = hashlib.sha256(b"kernel %d" % number).digest()
        whole = content.ljust(room, b"\0") if content else (fill * room)[:room]
        head += struct.pack(
            "<8sIIIIIIHHI",
            *(
                name,
                len(content) or room,
                0x1000 + at,
                room,
                at,
                0,
                0,
                0,
                0,
                0x40000040,
            ),
        )
        body += whole
        at += room
    return head.ljust(0x400, b"\0") + body


def _run(command: Iterable[str], text: str | None = None) -> None:
    program, *words = command
    subprocess.run(
        [toolbox.program(program), *words],
        input=text,
        text=True,
        env=toolbox.environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
