"""The smallest unified kernel image: headers, and the sections that are looked at."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

from sealift.core.bootable import words
from sealift.core.types import Artifact, Bootable, BootKind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["bootable_image", "made_up_root", "pe_file", "tiny_uki"]

_START: Final = 64
_OPTIONAL: Final = 112 + 16 * 8


def pe_file(sections: Mapping[str, bytes]) -> bytes:
    """A PE32+ file with these sections and no code that could run."""
    table = _START + 24 + _OPTIONAL
    headers = -(-(table + 40 * len(sections)) // 16) * 16
    coff = struct.pack(
        "<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, _OPTIONAL, 0x22
    )
    optional = bytearray(_OPTIONAL)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<I", optional, 60, headers)
    struct.pack_into("<I", optional, 108, 16)
    entries, contents, offset, address = b"", b"", headers, 0x1000
    for name, content in sections.items():
        entries += struct.pack(
            *("<8sIIIIIIHHI", name.encode(), len(content), address, len(content)),
            *(offset, 0, 0, 0, 0, 0x40000040),
        )
        contents += content
        offset += len(content)
        address += -(-len(content) // 0x1000) * 0x1000
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", _START)
    return (dos + coff + optional + entries).ljust(headers, b"\0") + contents


def tiny_uki(version: str, root_hash: bytes, salt: bytes, data_blocks: int) -> bytes:
    """An image of that version for that root."""
    line = " ".join(["panic=3", *words(root_hash, salt, data_blocks)])
    return pe_file(
        {
            ".osrel": f"ID=sim\nIMAGE_ID=sim\nIMAGE_VERSION={version}\n".encode(),
            ".cmdline": line.encode() + b"\0",
            ".linux": b"kernel of " + version.encode(),
        }
    )


def made_up_root(version: str) -> tuple[bytes, bytes]:
    """Root hash and salt of a root that there is not."""
    root, salt = (f"{what} {version}".encode() for what in ("root", "salt"))
    return hashlib.sha256(root).digest(), hashlib.sha256(salt).digest()


def bootable_image(version: str) -> tuple[bytes, Artifact]:
    """What lies in a slot, and its signed description; the root is made up.

    Nothing but the boot file of it is real, and at its place.
    """
    root_hash, salt = made_up_root(version)
    uki = tiny_uki(version, root_hash, salt, 1)
    content = bytes(4096) + uki
    bootable = Bootable(
        kind=BootKind.UKI,
        offset=4096,
        length=len(uki),
        sha256=hashlib.sha256(uki).digest(),
        root_hash=root_hash,
        salt=salt,
        data_blocks=1,
    )
    digest = hashlib.sha256(content).digest()
    image = Artifact(
        name=f"sim/{version}.img",
        length=len(content),
        sha256=digest,
        sha512=None,
        segment_size=65536,
        segment_root=digest,
        hardware_ids=("sim-board-r1",),
        release_counter=1,
        version=version,
        bootable=bootable,
    )
    return content, image
