"""dm-verity: the hash tree over a read-only file system, and its superblock.

The bytes are those of ``veritysetup format`` with SHA-256, hash type 1 and blocks of
4096 bytes on both sides (design page ``device.md`` 1.11, the kernel's
``Documentation/admin-guide/device-mapper/verity.rst``):

* A digest is SHA-256(salt ‖ block). 128 of them fill a hash block; the last block of a
  level is padded with zeros.
* Levels are built from the data upwards until one block is left, and stored top level
  first. The root hash is the digest of that block.
* One data block has no hash block at all: its digest is the root hash (device-D16).

:func:`build` holds one block of each level, whatever the image's size; where its hash
blocks go is the caller's matter: into a file, or against the bytes that are there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealift.core.errors import LengthError, LimitError, MalformedError

BLOCK: Final = 4096
"""Bytes of a block, of data and of hashes."""
DIGESTS: Final = 128
"""Digests that fill a hash block."""
BLOCKS_MAX: Final = 1 << 24
"""Data blocks of the largest image, 64 GiB."""
SALT_MAX: Final = 256
"""Bytes of the longest salt a superblock holds."""

Read = Callable[[int, int], bytes]
"""``read(offset, length)`` gives those bytes, fewer only where the data ends."""
Write = Callable[[int, bytes], None]
"""``write(offset, block)``: a hash block, at an offset from the start of the tree."""

_PIECE: Final = 32
_LAYOUT: Final = struct.Struct("<8sII16s32sIIQH6s256s168s")
_MAGIC: Final = b"verity\0\0"
_ALGORITHM: Final = b"sha256".ljust(32, b"\0")


# ── the tree ─────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Level:
    """One level of the tree: the number of its first hash block, and how many."""

    first: int
    count: int


def levels(data_blocks: int) -> tuple[Level, ...]:
    """The levels of the tree over so many blocks, from the data upwards.

    Raises:
        LimitError: no data block at all, or more than the largest image has.
    """
    if not 0 < data_blocks <= BLOCKS_MAX:
        raise LimitError(f"verity: {data_blocks} data blocks are none, or too many")
    counts, below = [], data_blocks
    while below > 1:
        below = -(-below // DIGESTS)
        counts.append(below)
    return tuple(
        Level(sum(counts[above + 1 :]), count) for above, count in enumerate(counts)
    )


def tree_blocks(data_blocks: int) -> int:
    """How many hash blocks the tree over so many data blocks has.

    Raises:
        LimitError: no data block at all, or more than the largest image has.
    """
    return sum(level.count for level in levels(data_blocks))


def build(read: Read, data_blocks: int, salt: bytes, write: Write) -> bytes:
    """Read the data once, from its beginning; hand out the tree; give the root hash.

    Each hash block goes to ``write`` once, as soon as it is full, not in order.

    Raises:
        LimitError: too few or too many blocks, or a salt that is too long.
        LengthError: the data ends too early. Whatever ``read`` and ``write`` raise.
    """
    if len(salt) > SALT_MAX:
        raise LimitError(f"verity: a salt of {len(salt)} bytes is too long")
    salted = sha256(salt)

    def digest(block: bytes | memoryview) -> bytes:
        found = salted.copy()
        found.update(block)
        return found.digest()

    tree = _Growing(levels(data_blocks), digest, write)
    for first in range(0, data_blocks, _PIECE):
        length = BLOCK * min(_PIECE, data_blocks - first)
        piece = read(first * BLOCK, length)
        if len(piece) != length:
            raise LengthError("verity: the data ends before its last block")
        view = memoryview(piece)
        for at in range(0, length, BLOCK):
            tree.add(0, digest(view[at : at + BLOCK]))
    return tree.finish()


def root_hash(read: Read, data_blocks: int, salt: bytes) -> bytes:
    """The root hash of the data alone.

    Raises:
        As :func:`build`.
    """
    return build(read, data_blocks, salt, lambda _offset, _block: None)


class _Growing:
    """A tree whose blocks are filled from the left, one open block in each level."""

    def __init__(
        self,
        shape: tuple[Level, ...],
        digest: Callable[[bytes | memoryview], bytes],
        write: Write,
    ) -> None:
        self._shape = shape
        self._digest = digest
        self._write = write
        self._open = [bytearray() for _ in shape]
        self._done = [0] * len(shape)
        self._root = b""

    def add(self, level: int, digest: bytes) -> None:
        """Add the next digest of a level; above the top level it is the root hash."""
        if level == len(self._shape):
            self._root = digest
            return
        self._open[level] += digest
        if len(self._open[level]) == BLOCK:
            self._close(level)

    def _close(self, level: int) -> None:
        block = bytes(self._open[level]).ljust(BLOCK, b"\0")
        self._open[level].clear()
        number = self._shape[level].first + self._done[level]
        self._done[level] += 1
        self._write(number * BLOCK, block)
        self.add(level + 1, self._digest(block))

    def finish(self) -> bytes:
        """Close what is still open, from the data upwards; the root hash."""
        for level in range(len(self._shape)):
            if self._open[level]:
                self._close(level)
        return self._root


# ── the superblock ───────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Superblock:
    """What stands before the tree: how many blocks it covers, salted with what."""

    data_blocks: int
    salt: bytes
    uuid: bytes

    def encode(self) -> bytes:
        """The block of 4096 bytes, as ``veritysetup`` writes it.

        Raises:
            LimitError: a value that does not fit.
        """
        levels(self.data_blocks)
        if len(self.salt) > SALT_MAX or len(self.uuid) != 16:
            raise LimitError("verity: a salt or UUID of the wrong length")
        return _LAYOUT.pack(
            _MAGIC, 1, 1, self.uuid, _ALGORITHM, BLOCK, BLOCK, self.data_blocks,
            len(self.salt), b"", self.salt, b"",
        ).ljust(BLOCK, b"\0")  # fmt: skip

    @classmethod
    def decode(cls, raw: bytes) -> Superblock:
        """Read one; there is one form: what parses is written back as it was.

        Raises:
            MalformedError: no superblock, or one of another kind than ours.
            LimitError: a number of blocks no image has.
        """
        if len(raw) != BLOCK or not raw.startswith(_MAGIC):
            raise MalformedError("verity: no superblock")
        found = _LAYOUT.unpack_from(raw)
        salt = found[10][: found[8]]
        superblock = cls(data_blocks=found[7], salt=salt, uuid=found[3])
        if superblock.encode() != raw:
            raise MalformedError("verity: a superblock of another kind than ours")
        return superblock
