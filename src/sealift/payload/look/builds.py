"""What differs between two builds though nobody changed it.

A build that is not reproducible brings differences of its own to every update: fresh
identities, time stamps, another order, a new salt. Each is small or large; all are free
to avoid.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from sealift.payload.look.findings import (
    LISTED,
    MOSTLY,
    Case,
    Finding,
    Severity,
    amount,
    tree_pairs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECKSUM: Final = 4
_ORDERED: Final = 0.9


def _identity(case: Case) -> Iterator[Finding]:
    for new, old in case.pairs():
        changed = sorted(
            name for name, value in new.identity.items() if old.identity[name] != value
        )
        if not changed:
            continue
        chosen = {"UUID", "hash seed"} & set(changed)
        cost = "a few bytes of the superblock and its copies"
        if "UUID" in chosen and new.tree and new.tree.superblock.metadata_checksums:
            count = len(new.tree.files)
            cost = (
                "checksums in every inode and directory are seeded with the UUID: "
                f"about {amount(_CHECKSUM * count)} of noise, in all {count} of them"
            )
        elif "hash seed" in chosen:
            cost = "large directories are sorted anew: all their blocks differ"
        yield Finding(
            "build.identity",
            Severity.WARNING if chosen else Severity.NOTE,
            f"{new.name}: fresh in this build: {', '.join(changed)}",
            cost,
            "set SOURCE_DATE_EPOCH (or E2FSPROGS_FAKE_TIME), a fixed UUID and hash "
            "seed per product: mke2fs -U UUID -E hash_seed=UUID; mkfs.erofs -T -U",
        )


def _times(case: Case) -> Iterator[Finding]:
    for new, old in tree_pairs(case):
        both = [
            (entry, before)
            for path, entry in new.files.items()
            if (before := old.files.get(path)) and before.size == entry.size
        ]
        changed = sum(entry.times != before.times for entry, before in both)
        if both and changed >= len(both) * MOSTLY:
            size = new.superblock.inode_size
            yield Finding(
                "build.times",
                Severity.WARNING,
                f"{changed} of {len(both)} files of equal size have another time stamp",
                f"their inodes all differ: {amount(changed * size)} of tables that "
                "could be copied as they are",
                "set every file to SOURCE_DATE_EPOCH before the image is made: find "
                "ROOT -exec touch -hd @$SOURCE_DATE_EPOCH {} +",
            )


def _order(case: Case) -> Iterator[Finding]:
    for new, old in tree_pairs(case):
        both = [path for path in new.files if path in old.files]
        both.sort(key=lambda path: old.files[path].inode)
        kept = _longest_rise([new.files[path].inode for path in both])
        if len(both) > LISTED and kept < len(both) * _ORDERED:
            yield Finding(
                "build.order",
                Severity.NOTE,
                f"{len(both) - kept} of {len(both)} files come in another order",
                "their blocks and inodes moved: found again, but not for nothing",
                "give the files to the image builder in sorted order",
            )


def _longest_rise(numbers: list[int]) -> int:
    """The length of the longest rising subsequence: how many kept their order."""
    tails: list[int] = []
    for number in numbers:
        at = bisect_left(tails, number)
        tails[at : at + 1] = [number]
    return len(tails)


def _salt(case: Case) -> Iterator[Finding]:
    for new, old in case.pairs():
        if new.verity and old.verity and new.verity.salt != old.verity.salt:
            yield Finding(
                "verity.salt",
                Severity.WARNING,
                f"{new.name}: the dm-verity salt is another one than before",
                f"every hash differs: {amount(new.verity.data_length // 128)} of tree "
                "that do not compress, in every update",
                "one salt per product line: veritysetup format --salt=HEX --uuid=UUID",
            )


RULES: Final = (_identity, _times, _order, _salt)
