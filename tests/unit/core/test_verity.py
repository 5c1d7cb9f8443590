"""The hash tree by its definition, its streaming, and the superblock's one form."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core import verity
from sealift.core.errors import LengthError, LimitError, MalformedError
from sealift.core.verity import BLOCK, Superblock

SALT = bytes(range(32))
PATTERN = bytes(range(256)) * 17
# data blocks: hash blocks (design page device.md, 1.11)
SIZES = {1: 0, 2: 1, 127: 1, 128: 1, 129: 3, 16383: 129, 16384: 129, 16385: 132}


def block(number: int) -> bytes:
    """A block that differs from the others, without work."""
    return number.to_bytes(8, "big") + PATTERN[: BLOCK - 8]


def read(offset: int, length: int) -> bytes:
    return b"".join(block(offset // BLOCK + at) for at in range(length // BLOCK))


def built(blocks: int, salt: bytes) -> tuple[bytes, bytes]:
    """Root hash and tree."""
    tree = bytearray(verity.tree_blocks(blocks) * BLOCK)
    written: list[int] = []

    def write(offset: int, content: bytes) -> None:
        written.append(offset)
        tree[offset : offset + BLOCK] = content

    root = verity.build(read, blocks, salt, write)
    assert sorted(written) == list(range(0, len(tree), BLOCK)), "each block once"
    return root, bytes(tree)


def by_definition(blocks: int, salt: bytes) -> tuple[bytes, bytes]:
    """Level by level, all of it in memory, top level first."""
    level = [sha256(salt + block(number)).digest() for number in range(blocks)]
    stored: list[bytes] = []
    while len(level) > 1:
        packed = [
            b"".join(level[at : at + 128]).ljust(BLOCK, b"\0")
            for at in range(0, len(level), 128)
        ]
        stored.insert(0, b"".join(packed))
        level = [sha256(salt + one).digest() for one in packed]
    return level[0], b"".join(stored)


@pytest.mark.parametrize("salt", [b"", SALT], ids=["no salt", "salt"])
@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 300])
def test_the_tree_is_the_defined_one(blocks: int, salt: bytes) -> None:
    """Built from the left in one pass, it is the tree built level by level."""
    assert built(blocks, salt) == by_definition(blocks, salt)


@pytest.mark.parametrize(("blocks", "hashes"), SIZES.items())
def test_D16_sizes_of_trees(blocks: int, hashes: int) -> None:
    """One data block has no hash block, and each border is where it should be."""
    assert verity.tree_blocks(blocks) == hashes


def test_D16_one_block_is_its_own_root() -> None:
    """The digest of the only block is the root hash."""
    assert verity.root_hash(read, 1, SALT) == sha256(SALT + block(0)).digest()


def test_memory_does_not_grow_with_the_image() -> None:
    """64 MiB of data take less than a MiB."""
    tracemalloc.start()
    verity.root_hash(lambda _offset, length: bytes(length), 1 << 14, SALT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("blocks", [0, -1, verity.BLOCKS_MAX + 1])
def test_images_nobody_has(blocks: int) -> None:
    """None, and more than the largest."""
    with pytest.raises(LimitError):
        verity.levels(blocks)


def test_data_that_ends_too_early() -> None:
    """A short read is no zero block."""
    with pytest.raises(LengthError):
        verity.root_hash(lambda offset, length: read(offset, length)[:-1], 3, SALT)


def test_a_salt_that_is_too_long() -> None:
    """The superblock has room for 256 bytes."""
    with pytest.raises(LimitError):
        verity.root_hash(read, 1, bytes(257))


# ── superblock ───────────────────────────────────────────────────────────────────────
FOUND = Superblock(977, SALT, bytes(range(16)))


def test_a_superblock_reads_back() -> None:
    """A block of 4096 bytes that begins with its name."""
    raw = FOUND.encode()
    assert len(raw) == BLOCK
    assert raw.startswith(b"verity\0\0\1\0\0\0\1\0\0\0")
    assert Superblock.decode(raw) == FOUND


@given(at=st.integers(0, BLOCK - 1), flip=st.integers(1, 255))
def test_a_changed_superblock_is_another_or_none(at: int, flip: int) -> None:
    """There is one form: whatever else is read, it is not read as this one."""
    raw = bytearray(FOUND.encode())
    raw[at] ^= flip
    try:
        found = Superblock.decode(bytes(raw))
    except (MalformedError, LimitError):
        return
    assert found != FOUND
    assert found.encode() == bytes(raw)


@pytest.mark.parametrize("raw", [b"", bytes(BLOCK), FOUND.encode()[:-1]])
def test_what_is_no_superblock(raw: bytes) -> None:
    """Nothing, zeros, and one that is cut off."""
    with pytest.raises(MalformedError):
        Superblock.decode(raw)


@pytest.mark.parametrize(
    "found",
    [
        Superblock(0, SALT, bytes(16)),
        Superblock(1, bytes(257), bytes(16)),
        Superblock(1, SALT, bytes(15)),
    ],
)
def test_what_no_superblock_says(found: Superblock) -> None:
    """No blocks, a long salt, a short UUID."""
    with pytest.raises(LimitError):
        found.encode()
