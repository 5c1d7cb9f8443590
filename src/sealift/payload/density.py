"""How dense bytes are, and which compressed streams begin where.

A delta finds what two builds have in common. Compression and encryption leave nothing
in common: bytes then look like chance, close to eight bits of entropy each. Two signs
are taken together, since either alone lies: the magic number of a stream at an aligned
offset, and the entropy of what follows.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.core.payload import all_zero

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK: Final = 4096
"""Bytes looked at together; chance has 7.955 bits of entropy per byte in so many."""
DENSE: Final = 7.8
"""Bits per byte above which a block counts as compressed or encrypted. Machine code
stays below 7, lz4 reaches it nearly always, deflate, xz and zstd always."""
INCOMPRESSIBLE: Final = 0.9
"""A dense block does not come out shorter than this share of itself."""
ALIGNMENT: Final = 512
"""Where a stream may begin; file systems and partitions keep to it."""
SAMPLES: Final = 16
"""Blocks per segment whose entropy is taken."""

_SHORT_MIN: Final = 1024
_MAGICS: Final = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"BZh", "bzip2"),
    (b"\x89LZO\0", "lzo"),
    (b"\x5d\0\0", "lzma"),
)
_KERNELS: Final = (
    (0x202, b"HdrS", "x86 kernel"),
    (0x24, b"\x18\x28\x6f\x01", "ARM kernel (zImage)"),
    (0x04, b"zimg", "EFI kernel (zboot)"),
)
_VOLUME: Final = (40, b"_FVH", "UEFI firmware volume")
_LZMA_SECTION: Final = bytes.fromhex("9858 4eee 1439 5942 9d6e dc7b d794 03cf")
"""GUID of a UEFI section that is LZMA-compressed (Platform Initialization, vol. 3)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A compressed stream: where it begins, and by what it was compressed."""

    offset: int
    kind: str


@dataclass(frozen=True, slots=True)
class Density:
    """One segment: zero bytes only, or how many of its sampled blocks are dense."""

    offset: int
    length: int
    zero: bool
    dense: int
    sampled: int


def entropy(data: bytes) -> float:
    """Bits per byte (Shannon), 0 for none."""
    total = len(data)
    shares = (count / total for count in Counter(data).values())
    return -sum(share * math.log2(share) for share in shares)


def is_dense(block: bytes) -> bool:
    """Whether a block looks like chance; in a short one less is expected of it."""
    if len(block) < _SHORT_MIN:
        return False
    # Chance fills n bytes with about 128/(n ln 2) bits less than eight, each (Miller).
    shortfall = 255 / (2 * math.log(2)) * (1 / len(block) - 1 / BLOCK)
    if entropy(block) <= DENSE - max(0.0, shortfall):
        return False
    # All byte values may be equally frequent and yet repeat themselves.
    return len(zlib.compress(block, 1)) > INCOMPRESSIBLE * len(block)


def measure(offset: int, data: bytes) -> Density:
    """Sample one segment of an image, ``data``, of 1 MiB at most, at ``offset``."""
    if all_zero(data):
        return Density(offset, len(data), zero=True, dense=0, sampled=0)
    blocks = range(0, len(data), BLOCK)
    chosen = blocks[:: max(1, len(blocks) // SAMPLES)]
    dense = sum(is_dense(data[at : at + BLOCK]) for at in chosen)
    return Density(offset, len(data), zero=False, dense=dense, sampled=len(chosen))


def streams(offset: int, data: bytes) -> Iterator[Stream]:
    """The compressed streams that begin in one segment at an aligned offset."""
    for magic, kind in _MAGICS:
        for at in _aligned(data, magic, 0):
            if _follows(data, at, kind):
                yield Stream(offset + at, kind)
    for place, magic, kind in _KERNELS:
        yield from (Stream(offset + at, kind) for at in _aligned(data, magic, place))
    place, magic, kind = _VOLUME
    for at in _aligned(data, magic, place):
        if _LZMA_SECTION in data[at : at + (1 << 16)]:
            yield Stream(offset + at, kind)


def _aligned(data: bytes, magic: bytes, place: int) -> Iterator[int]:
    """Aligned offsets at which ``magic`` stands ``place`` bytes further on."""
    at = data.find(magic)
    while at >= 0:
        if at >= place and (at - place) % ALIGNMENT == 0:
            yield at - place
        at = data.find(magic, at + 1)


def _follows(data: bytes, at: int, kind: str) -> bool:
    """Whether dense bytes follow; the first of a stream are its own tables."""
    following = data[at + 64 : at + 64 + BLOCK]
    if kind == "lz4":  # it leaves literals as they are
        return entropy(following) > 6.5 if following else False
    return is_dense(following)
