"""The Merkle tree hash of RFC 9162, section 2.1: root over a stream, inclusion proofs.

Leaves and nodes are hashed under different prefixes, so neither can pass for the other.
What the leaves mean (segment digests of a payload, events of a log) is the caller's
matter; nothing here reads or keeps them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.errors import DigestError, LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_SIZE: Final = 32
"""Bytes of every hash here (SHA-256)."""

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of a tree without leaves."""

MAX_SIZE: Final = 1 << 63
"""More leaves than any tree of ours has; larger numbers are refused unread."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf that holds ``data`` (RFC 9162, 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two children (RFC 9162, 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: one hash per set bit of its size.

    Memory is logarithmic in the number of leaves.
    """

    def __init__(self) -> None:
        self.size = 0
        """How many leaves were added."""
        self._edge: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append a leaf by its hash (:func:`leaf_hash`)."""
        full = self.size
        while full & 1:
            leaf = node_hash(self._edge.pop(), leaf)
            full >>= 1
        self._edge.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The tree hash over all leaves added so far."""
        if not self._edge:
            return EMPTY_ROOT
        found = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            found = node_hash(left, found)
        return found


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """The tree hash over leaf *data*, taken one by one."""
    frontier = Frontier()
    for data in leaves:
        frontier.add(leaf_hash(data))
    return frontier.root()


def verify_inclusion(
    root: bytes, *, size: int, index: int, leaf: bytes, proof: Sequence[bytes]
) -> None:
    """Return if ``leaf``, a leaf hash, is number ``index`` (RFC 9162, 2.1.3.2).

    Raises:
        MalformedError: the index lies outside the tree, the proof has not exactly the
            length this leaf needs, or a hash has a wrong size.
        LimitError: ``size`` is beyond every tree of ours.
        DigestError: the proof leads to another root.
    """
    if size > MAX_SIZE:
        raise LimitError("merkle: tree size out of range")
    if not 0 <= index < size:
        raise MalformedError("merkle: leaf index outside the tree")
    if any(len(part) != HASH_SIZE for part in (root, leaf, *proof)):
        raise MalformedError("merkle: a hash is not 32 bytes long")
    if _climb(index, size, leaf, proof) != root:
        raise DigestError("merkle: the inclusion proof leads to another root")


def _climb(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that ``proof`` makes of ``leaf``; names as in RFC 9162: fn, sn, r."""
    fn, sn, r = index, size - 1, leaf
    for part in proof:
        if sn == 0:
            raise MalformedError("merkle: the inclusion proof is too long")
        if fn & 1 or fn == sn:
            r = node_hash(part, r)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, part)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise MalformedError("merkle: the inclusion proof is too short")
    return r
