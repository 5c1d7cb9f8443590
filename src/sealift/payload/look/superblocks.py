"""What the first bytes of an image say it is: file system, LUKS, verity, partitions.

Each reader takes the bytes where its structure would begin and gives ``None`` when it
is not there: most images are not most things. What is there and lies about its own
bounds is refused. Layouts: Linux kernel ``fs/squashfs/squashfs_fs.h`` and
``fs/erofs/erofs_fs.h``, the LUKS2 on-disk format 1.1.3, cryptsetup's ``DMVerity`` page,
UEFI specification 2.10 section 5.3 (GPT). ext4 has a module of its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.core.container import IMAGE_MAX
from sealift.core.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.core.container import ReadAt

SECTOR: Final = 512
PARTITIONS_MAX: Final = 128
VERITY_MAGIC: Final = b"verity\0\0"
VERITY_SIZE: Final = 512

_SQUASHFS: Final = struct.Struct("<4sIIIIHHHHHHQQ")
_SQUASHFS_CODECS: Final = ("?", "gzip", "lzma", "lzo", "xz", "lz4", "zstd")
_RAW_DATA, _RAW_FRAGMENTS = 0x2, 0x8
_EROFS_MAGIC: Final = bytes.fromhex("e2e1f5e0")
_EROFS_CODECS: Final = ("lz4", "lzma", "deflate", "zstd")
_EROFS_LZ4, _EROFS_CODECS_LISTED = 0x1, 0x2
_GPT: Final = struct.Struct("<8sIIIIQQQQ16sQII")
_GPT_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_PROTECTIVE: Final = 0xEE


@dataclass(frozen=True, slots=True)
class Packed:
    """A read-only file system. ``codec`` is ``None`` if its data is not compressed."""

    kind: str
    codec: str | None
    block_size: int
    length: int
    identity: dict[str, str]
    """What a build chooses afresh unless told not to, as texts, by name."""


@dataclass(frozen=True, slots=True)
class Verity:
    """The header of a dm-verity hash tree."""

    salt: bytes
    uuid: bytes
    data_length: int


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a disk image, in bytes."""

    name: str
    offset: int
    length: int


def squashfs(raw: bytes) -> Packed | None:
    """The squashfs that begins with these bytes (96 at least), if one does."""
    if len(raw) < 96 or raw[:4] != b"hsqs":
        return None
    _, _, made, block_size, _, codec, _, flags, _, major, _, _, used = (
        _SQUASHFS.unpack_from(raw)
    )
    if major != 4 or not 0 < used <= IMAGE_MAX:
        raise MalformedError("squashfs: the superblock is not of version 4, or lies")
    name = _SQUASHFS_CODECS[codec if codec < len(_SQUASHFS_CODECS) else 0]
    raw_data = flags & _RAW_DATA and flags & _RAW_FRAGMENTS
    return Packed(
        "squashfs",
        None if raw_data else name,
        block_size,
        used,
        {"creation time": str(made)},
    )


def erofs(raw: bytes) -> Packed | None:
    """The EROFS whose superblock (at offset 1024) is these 128 bytes, if it is one."""
    if len(raw) < 128 or raw[:4] != _EROFS_MAGIC:
        return None
    shift = raw[12]
    (blocks,) = struct.unpack_from("<I", raw, 36)
    incompatible, listed = struct.unpack_from("<IH", raw, 80)
    length = blocks << shift if shift <= 16 else 0
    if not 0 < length <= IMAGE_MAX:
        raise MalformedError("EROFS: the superblock lies about its size")
    codecs = [name for bit, name in enumerate(_EROFS_CODECS) if listed >> bit & 1]
    if not incompatible & _EROFS_CODECS_LISTED:
        codecs = ["lz4"] if incompatible & _EROFS_LZ4 else []
    (made,) = struct.unpack_from("<Q", raw, 24)
    identity = {"UUID": raw[48:64].hex(), "creation time": str(made)}
    return Packed("EROFS", "+".join(codecs) or None, 1 << shift, length, identity)


def is_luks(raw: bytes) -> bool:
    """Whether a LUKS container, version 1 or 2, begins with these bytes."""
    return raw[:6] == b"LUKS\xba\xbe" and raw[6:8] in {b"\0\1", b"\0\2"}


def verity(raw: bytes) -> Verity | None:
    """The dm-verity header that is these 512 bytes, if they are one."""
    if len(raw) < VERITY_SIZE or raw[:8] != VERITY_MAGIC:
        return None
    version, kind = struct.unpack_from("<II", raw, 8)
    data_block, _, blocks = struct.unpack_from("<IIQ", raw, 64)
    (salt_length,) = struct.unpack_from("<H", raw, 80)
    sane = version == 1 and kind <= 1 and salt_length <= 256
    if not sane or blocks * data_block > IMAGE_MAX:
        return None
    return Verity(raw[88 : 88 + salt_length], raw[16:32], blocks * data_block)


def partitions(read_at: ReadAt, length: int) -> tuple[Partition, ...]:
    """The partitions of a disk image, none if it is not one; GPT, else MBR.

    What passes the end of the image, or is empty, is left out.
    """
    first = read_at(0, SECTOR)
    if len(first) < SECTOR or first[510:] != b"\x55\xaa":
        return ()
    found = list(_mbr(first))
    if any(kind == _PROTECTIVE for kind, _ in found):
        return tuple(_inside(_gpt(read_at), length))
    return tuple(_inside((place for kind, place in found if kind), length))


def _inside(found: Iterator[Partition], length: int) -> Iterator[Partition]:
    for place in found:
        if place.length > 0 and 0 < place.offset <= length - place.length:
            yield place


def _mbr(sector: bytes) -> Iterator[tuple[int, Partition]]:
    for number in range(4):
        at = 446 + 16 * number
        start, count = struct.unpack_from("<II", sector, at + 8)
        place = Partition(f"partition {number + 1}", start * SECTOR, count * SECTOR)
        if sector[at] in {0x00, 0x80}:  # else this sector is code, not a table
            yield sector[at + 4], place


def _gpt(read_at: ReadAt) -> Iterator[Partition]:
    raw = read_at(SECTOR, SECTOR)
    if len(raw) < SECTOR:
        return
    magic, *_, table, count, size = _GPT.unpack_from(raw)
    if magic != b"EFI PART" or size != _GPT_ENTRY.size or table * SECTOR > IMAGE_MAX:
        return
    entries = read_at(table * SECTOR, min(count, PARTITIONS_MAX) * size)
    for number in range(len(entries) // size):
        kind, _, start, stop, _, label = _GPT_ENTRY.unpack_from(entries, number * size)
        if any(kind) and start <= stop <= IMAGE_MAX // SECTOR:
            text = label.decode("utf-16-le", "replace").split("\0")[0]
            name = f"partition {number + 1}" + (f" ({text})" if text else "")
            yield Partition(name, start * SECTOR, (stop + 1 - start) * SECTOR)
