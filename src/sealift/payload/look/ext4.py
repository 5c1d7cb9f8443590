"""An ext4 file system, read without mounting it: superblock, free blocks, files.

Read are the few structures that tell why a delta grows (Linux kernel documentation,
"ext4 Data Structures and Algorithms"): the superblock, block bitmaps, inodes, extent
trees and directories. Everything comes through ``read_at``, every number is bounded
before it is used, and the whole of one file system may cost a fixed number of reads: an
image is made by a build system, and may be made by an attacker.

Not read: block groups with ``meta_bg``, clusters (``bigalloc``), inline data, encrypted
names. Where they stand in the way, an error says so, or a file has no blocks.
"""

from __future__ import annotations

import re
import stat
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.core.container import IMAGE_MAX
from sealift.core.errors import LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sealift.core.container import ReadAt

SUPERBLOCK_AT: Final = 1024
ROOT_INODE: Final = 2
GROUPS_MAX: Final = 1 << 16
STEPS_MAX: Final = 1 << 21
"""Inodes, extents, names and KiB of metadata read of one file system at most."""
DIRECTORY_MAX: Final = 1 << 26
"""Bytes of the largest directory that is read."""

_MAGIC: Final = b"\x53\xef"
_HAS_JOURNAL, _SPARSE_SUPER2 = 0x4, 0x200
_META_BG, _64BIT = 0x10, 0x80
_SPARSE_SUPER, _BIGALLOC, _METADATA_CSUM = 0x1, 0x200, 0x400
_BLOCK_UNINIT: Final = 0x2
_INODE_EXTENTS, _INODE_INLINE = 0x80000, 0x10000000
_FAST_LINK: Final = 60
"""Bytes of the shortest link that needs a block."""
_DIRECT: Final = 12
_EXTENT_MAGIC: Final = 0xF30A
_EXTENT_DEPTH_MAX: Final = 5
_EXTENT_INITIALISED_MAX: Final = 1 << 15
_FREE_BITS: Final = re.compile("0+")


def _u16(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 2], "little")


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


@dataclass(frozen=True, slots=True)
class Superblock:
    """The fields of the superblock that matter here. Times are Unix seconds."""

    blocks: int
    block_size: int
    first_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    descriptor_size: int
    reserved_descriptor_blocks: int
    compatible: int
    incompatible: int
    read_only: int
    mounts: int
    journal_inode: int
    identity: dict[str, str]
    """What a build chooses afresh unless told not to, as texts, by name."""

    @property
    def length(self) -> int:
        """Bytes of the file system, which the image must hold."""
        return self.blocks * self.block_size

    @property
    def groups(self) -> int:
        """How many block groups there are."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def journal(self) -> bool:
        """Whether it has a journal of its own."""
        return bool(self.compatible & _HAS_JOURNAL and self.journal_inode)

    @property
    def metadata_checksums(self) -> bool:
        """Whether inodes and directories carry checksums seeded with the UUID."""
        return bool(self.read_only & _METADATA_CSUM)

    def has_backup(self, group: int) -> bool:
        """Whether a block group begins with a copy of superblock and descriptors."""
        if group in {0, 1}:
            return group == 0 or not self.compatible & _SPARSE_SUPER2
        if not self.read_only & _SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    @classmethod
    def decode(cls, raw: bytes) -> Superblock:
        """Read the 1024 bytes at offset 1024.

        Raises:
            MalformedError: not ext4, or no sane one. LimitError: larger than any image.
        """
        if len(raw) < 1024 or raw[0x38:0x3A] != _MAGIC:
            raise MalformedError("ext4: there is no superblock")
        incompatible = _u32(raw, 0x60)
        wide = bool(incompatible & _64BIT)
        found = cls(
            blocks=_u32(raw, 0x04) | (_u32(raw, 0x150) << 32 if wide else 0),
            block_size=1024 << min(_u32(raw, 0x18), 7),
            first_block=_u32(raw, 0x14),
            blocks_per_group=_u32(raw, 0x20),
            inodes_per_group=_u32(raw, 0x28),
            inode_size=_u16(raw, 0x58) if _u32(raw, 0x4C) else 128,
            descriptor_size=_u16(raw, 0xFE) if wide else 32,
            reserved_descriptor_blocks=_u16(raw, 0xCE),
            compatible=_u32(raw, 0x5C),
            incompatible=incompatible,
            read_only=_u32(raw, 0x64),
            mounts=_u16(raw, 0x34),
            journal_inode=_u32(raw, 0xE0),
            identity=_identity(raw),
        )
        found._check()
        return found

    def _check(self) -> None:
        bits = 8 * self.block_size
        sane = (
            self.block_size <= 1 << 16
            and self.first_block in {0, 1}
            and self.blocks > self.first_block
            and self.blocks_per_group > 0
            and (self.blocks_per_group <= bits or self.read_only & _BIGALLOC)
            and 0 < self.inodes_per_group <= bits
            and 128 <= self.inode_size <= self.block_size
            and 32 <= self.descriptor_size <= 1024
        )
        if not sane:
            raise MalformedError("ext4: the superblock contradicts itself")
        if self.length > IMAGE_MAX or self.groups > GROUPS_MAX:
            raise LimitError("ext4: larger than any image", length=self.length)


@dataclass(frozen=True, slots=True)
class Inode:
    """One inode: what it is, how long, when it was touched, where its blocks are."""

    number: int
    mode: int
    size: int
    flags: int
    times: tuple[int, int]
    """Modification and change, Unix seconds."""
    place: bytes

    @property
    def is_directory(self) -> bool:
        """Whether it holds names."""
        return stat.S_ISDIR(self.mode)

    @property
    def has_blocks(self) -> bool:
        """Whether its place names blocks; short links keep their text there."""
        if self.flags & _INODE_INLINE or stat.S_ISLNK(self.mode):
            return not self.flags & _INODE_INLINE and self.size >= _FAST_LINK
        # The file system's own files, such as the journal, may have no mode at all.
        return stat.S_IFMT(self.mode) in {stat.S_IFREG, stat.S_IFDIR, 0}


@dataclass(frozen=True, slots=True)
class File:
    """A file or directory by its path, and the runs of blocks that hold it."""

    path: str
    inode: Inode
    runs: tuple[tuple[int, int], ...]
    """Byte offset in the file system and length, in the order of the file."""


class Ext4:
    """One file system behind ``read_at``.

    Raises:
        MalformedError, LimitError: there is none, or none that is sane.
    """

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._steps = STEPS_MAX
        self.superblock = Superblock.decode(read_at(SUPERBLOCK_AT, 1024))
        self._descriptors = self._read_descriptors()

    # ── free blocks ──────────────────────────────────────────────────────────────────
    def free_runs(self) -> Iterator[tuple[int, int]]:
        """Byte offset and length of each run of blocks that belongs to nothing.

        Raises:
            MalformedError: cut short, or a form that is not read here.
        """
        if self.superblock.read_only & _BIGALLOC:
            raise MalformedError("ext4: clusters (bigalloc) are not read here")
        size = self.superblock.block_size
        for group in range(self.superblock.groups):
            start, count = self._extent_of(group)
            for free in _FREE_BITS.finditer(self._used_bits(group, count)):
                yield (start + free.start()) * size, (free.end() - free.start()) * size

    def _extent_of(self, group: int) -> tuple[int, int]:
        """First block of a group, and how many it has."""
        found = self.superblock
        start = found.first_block + group * found.blocks_per_group
        return start, min(found.blocks_per_group, found.blocks - start)

    def _used_bits(self, group: int, count: int) -> str:
        """One character per block of the group: 1 used, 0 free."""
        descriptor = self._descriptors[group]
        if descriptor.flags & _BLOCK_UNINIT:
            return self._implied_bits(group, count)
        raw = self._block(descriptor.block_bitmap)
        number = int.from_bytes(raw, "little") & ((1 << count) - 1)
        return f"{number:0{count}b}"[::-1]

    def _implied_bits(self, group: int, count: int) -> str:
        """What a bitmap that was never written would say: only the group's own use."""
        found = self.superblock
        start, _ = self._extent_of(group)
        descriptor = self._descriptors[group]
        used = set[int]()
        if found.has_backup(group):
            used.update(
                range(1 + self._table_blocks + found.reserved_descriptor_blocks)
            )
        table = -(-found.inodes_per_group * found.inode_size // found.block_size)
        for first, length in (
            (descriptor.block_bitmap, 1),
            (descriptor.inode_bitmap, 1),
            (descriptor.inode_table, table),
        ):
            used.update(range(first - start, first - start + length))
        return "".join("1" if at in used else "0" for at in range(count))

    # ── files ────────────────────────────────────────────────────────────────────────
    def files(self) -> Iterator[File]:
        """Every file and directory from the root on, each inode once.

        Raises:
            MalformedError: a structure contradicts itself, or is not read here.
            LimitError: more files than are read.
        """
        # Breadth first, and no recursion: a chain of directories may be long.
        seen = {ROOT_INODE}
        queue = deque([self._file("/", ROOT_INODE)])
        while queue:
            found = queue.popleft()
            yield found
            if not found.inode.is_directory:
                continue
            for name, number in self._entries(found):
                self._spend()
                if number not in seen:
                    seen.add(number)
                    path = f"{found.path.rstrip('/')}/{name}"
                    self._spend(len(path) >> 8)  # paths grow with their depth
                    queue.append(self._file(path, number))

    def tables(self) -> Iterator[tuple[str, int, int]]:
        """Name, byte offset and length of what is no file: bitmaps and inode tables."""
        found = self.superblock
        size = found.block_size
        for descriptor in self._descriptors:
            yield "block bitmaps", descriptor.block_bitmap * size, size
            yield "inode bitmaps", descriptor.inode_bitmap * size, size
            length = found.inodes_per_group * found.inode_size
            yield "inode tables", descriptor.inode_table * size, length

    def journal(self) -> File | None:
        """The journal as the file it is; ``None`` without one.

        Raises:
            MalformedError, LimitError: it cannot be read.
        """
        if not self.superblock.journal:
            return None
        return self._file("(journal)", self.superblock.journal_inode)

    def read(self, file: File, limit: int) -> bytes:
        """The first ``limit`` bytes of a file at most, its holes left out.

        Raises:
            MalformedError: the image ends before the file.
        """
        want = min(limit, file.inode.size)
        pieces = []
        for offset, length in file.runs:
            pieces.append(self._exactly(offset, min(length, want)))
            want -= len(pieces[-1])
            if not want:
                break
        return b"".join(pieces)

    def _file(self, path: str, number: int) -> File:
        inode = self._inode(number)
        return File(path, inode, tuple(self._runs(inode)))

    def _inode(self, number: int) -> Inode:
        found = self.superblock
        group, index = divmod(number - 1, found.inodes_per_group)
        if not 0 <= group < found.groups:
            raise MalformedError("ext4: a name leads to no inode", inode=number)
        self._spend()
        table = self._descriptors[group].inode_table * found.block_size
        raw = self._exactly(table + index * found.inode_size, found.inode_size)
        return Inode(
            number=number,
            mode=_u16(raw, 0),
            size=_u32(raw, 4) | _u32(raw, 0x6C) << 32,
            flags=_u32(raw, 0x20),
            times=(_u32(raw, 0x10), _u32(raw, 0x0C)),
            place=raw[0x28:0x64],
        )

    def _runs(self, inode: Inode) -> Iterator[tuple[int, int]]:
        """The byte runs of an inode; fast links, devices and inline data have none."""
        if not inode.has_blocks:
            return
        if inode.flags & _INODE_EXTENTS:
            yield from self._leaves(inode.place, _EXTENT_DEPTH_MAX)
            return
        size = self.superblock.block_size
        for start, length in _joined(self._mapped(inode)):
            yield start * size, length * size

    def _mapped(self, inode: Inode) -> Iterator[int]:
        """The blocks of a file in the way of ext2 and ext3: a map instead of extents.

        Twelve blocks are named in the inode, the others by blocks of numbers, and these
        by others, at most three levels deep. Holes are left out.
        """
        numbers = struct.unpack_from("<15I", inode.place)
        for number in numbers[:_DIRECT]:
            yield from self._below(number, 0)
        for level, number in enumerate(numbers[_DIRECT:], 1):
            yield from self._below(number, level)

    def _below(self, number: int, level: int) -> Iterator[int]:
        if number >= self.superblock.blocks:
            raise MalformedError("ext4: a block beyond the end", block=number)
        if not number:
            return
        if not level:
            self._spend()
            yield number
            return
        for (child,) in struct.iter_unpack("<I", self._block(number)):
            yield from self._below(child, level - 1)

    def _leaves(self, node: bytes, depth_max: int) -> Iterator[tuple[int, int]]:
        magic, count, _, depth = struct.unpack_from("<4H", node)
        if magic != _EXTENT_MAGIC or depth > depth_max or 12 * count + 12 > len(node):
            raise MalformedError("ext4: a malformed extent tree")
        size, blocks = self.superblock.block_size, self.superblock.blocks
        for at in range(12, 12 * count + 12, 12):
            if depth:
                child = _u32(node, at + 4) | _u16(node, at + 8) << 32
                yield from self._leaves(self._block(child), depth - 1)
                continue
            self._spend()
            start = _u32(node, at + 8) | _u16(node, at + 6) << 32
            length = _u16(node, at + 4)
            if length > _EXTENT_INITIALISED_MAX:
                length -= _EXTENT_INITIALISED_MAX
            if start + length > blocks:
                raise MalformedError("ext4: an extent leaves the file system")
            yield start * size, length * size

    def _entries(self, directory: File) -> Iterator[tuple[str, int]]:
        """Names and inodes of a directory, without itself and its parent."""
        if directory.inode.size > DIRECTORY_MAX:
            raise LimitError("ext4: a directory larger than is read")
        size = self.superblock.block_size
        for offset, length in directory.runs:
            for at in range(offset, offset + length, size):
                self._spend(size >> 10)
                yield from _names(self._exactly(at, size))

    # ── reading ──────────────────────────────────────────────────────────────────────
    @property
    def _table_blocks(self) -> int:
        found = self.superblock
        return -(-found.groups * found.descriptor_size // found.block_size)

    def _read_descriptors(self) -> list[_Descriptor]:
        found = self.superblock
        if found.incompatible & _META_BG:
            raise MalformedError("ext4: scattered descriptors (meta_bg) are not read")
        size = found.descriptor_size
        raw = self._exactly(
            (found.first_block + 1) * found.block_size, found.groups * size
        )
        return [
            _Descriptor.decode(raw[at : at + size]) for at in range(0, len(raw), size)
        ]

    def _block(self, number: int) -> bytes:
        if number >= self.superblock.blocks:
            raise MalformedError("ext4: a block beyond the end", block=number)
        size = self.superblock.block_size
        self._spend(size >> 10)
        return self._exactly(number * size, size)

    def _exactly(self, offset: int, length: int) -> bytes:
        if offset + length > self.superblock.length:
            raise MalformedError("ext4: a structure beyond the end", offset=offset)
        raw = self._read_at(offset, length)
        if len(raw) != length:
            raise MalformedError("ext4: the image ends before its file system")
        return raw

    def _spend(self, steps: int = 1) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise LimitError("ext4: more files and blocks than are read")


@dataclass(frozen=True, slots=True)
class _Descriptor:
    """Where the tables of one block group are, in blocks."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    flags: int

    @classmethod
    def decode(cls, raw: bytes) -> _Descriptor:
        places = [_u32(raw, at) for at in (0, 4, 8)]
        if len(raw) >= 64:
            places = [
                low | _u32(raw, at) << 32
                for low, at in zip(places, (0x20, 0x24, 0x28), strict=True)
            ]
        block_bitmap, inode_bitmap, inode_table = places
        flags = _u16(raw, 0x12)
        return cls(block_bitmap, inode_bitmap, inode_table, flags)


def _names(block: bytes) -> Iterator[tuple[str, int]]:
    """The entries of one directory block; those of hash trees read as empty ones."""
    at = 0
    while at + 8 <= len(block):
        inode, length, name_length = struct.unpack_from("<IHB", block, at)
        if length < 8 or length % 4 or at + length > len(block):
            raise MalformedError("ext4: a malformed directory")
        name = block[at + 8 : at + 8 + name_length]
        if inode and name not in {b".", b".."}:
            yield name.decode("utf-8", "surrogateescape"), inode
        at += length


def _identity(raw: bytes) -> dict[str, str]:
    """Fields that a fresh build fills from its clock or from chance."""
    texts = {"UUID": raw[0x68:0x78].hex(), "hash seed": raw[0xEC:0xFC].hex()}
    numbers = {
        "creation time": _u32(raw, 0x108),
        "write time": _u32(raw, 0x30),
        "mount time": _u32(raw, 0x2C),
        "check time": _u32(raw, 0x40),
        "mount count": _u16(raw, 0x34),
    }
    return texts | {name: str(value) for name, value in numbers.items()}


def _joined(blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of blocks that follow each other: first block and count."""
    start = count = 0
    for block in blocks:
        if count and block == start + count:
            count += 1
            continue
        if count:
            yield start, count
        start, count = block, 1
    if count:
        yield start, count


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
