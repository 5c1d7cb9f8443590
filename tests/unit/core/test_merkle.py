"""The tree hash: RFC 9162 by its own recursive definition, and proofs that must fail."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest

from sealift.core.errors import DigestError, LimitError, MalformedError, SealiftError
from sealift.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    node_hash,
    tree_root,
    verify_inclusion,
)

# The eight leaves of the RFC 6962 reference tests and the roots everybody computes.
LEAVES = [
    bytes.fromhex(found)
    for found in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word: split at the largest power of two."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = by_definition(leaves[:k]), by_definition(leaves[k:])
    return sha256(b"\x01" + left + right).digest()


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162, 2.1.3.1, word for word."""
    if len(leaves) <= 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return [*path(index, leaves[:k]), by_definition(leaves[k:])]
    return [*path(index - k, leaves[k:]), by_definition(leaves[:k])]


@pytest.mark.parametrize("size", ROOTS)
def test_the_reference_roots_come_out(size: int) -> None:
    """The published roots of the reference leaves are ours."""
    assert tree_root(LEAVES[:size]).hex() == ROOTS[size]


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    """The root of no leaves is SHA-256 of the empty string."""
    assert Frontier().root() == tree_root([]) == EMPTY_ROOT == sha256().digest()


def test_the_stream_equals_the_definition_at_every_size() -> None:
    """The streamed root is the recursive one, and asking for it changes nothing."""
    leaves = [b"%d" % i for i in range(70)]
    frontier = Frontier()
    for size in range(70):
        assert frontier.root() == by_definition(leaves[:size])
        frontier.add(leaf_hash(leaves[size]))
        assert len(frontier._edge) == frontier.size.bit_count()


def test_a_leaf_never_passes_for_a_node() -> None:
    """Leaves and nodes are hashed apart, so no leaf can be built that is a node."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def prove(index: int, size: int) -> tuple[bytes, bytes, list[bytes]]:
    leaves = [b"%d" % i for i in range(size)]
    return by_definition(leaves), leaf_hash(leaves[index]), path(index, leaves)


def test_every_true_proof_up_to_33_leaves_is_accepted() -> None:
    """The proof of the definition verifies for each leaf of each tree."""
    for size in range(1, 34):
        for index in range(size):
            root, leaf, proof = prove(index, size)
            verify_inclusion(root, size=size, index=index, leaf=leaf, proof=proof)


def test_every_other_place_and_size_is_refused() -> None:
    """A true proof is true at one index and, where it shows, for one size."""
    root, leaf, proof = prove(5, 11)
    for index in range(11):
        if index != 5:
            with pytest.raises(SealiftError):
                verify_inclusion(root, size=11, index=index, leaf=leaf, proof=proof)
    for size in (6, 7, 8, 17, 33):
        with pytest.raises(SealiftError):
            verify_inclusion(root, size=size, index=5, leaf=leaf, proof=proof)


@pytest.mark.parametrize("index", [0, 3, 7, 10])
def test_every_flipped_bit_of_a_proof_is_refused(index: int) -> None:
    """One wrong bit anywhere in root, leaf or proof leads to another root."""
    root, leaf, proof = prove(index, 11)
    everything = [root, leaf, *proof]
    for place, part in enumerate(everything):
        for bit in range(0, 256, 37):
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            bad = [*everything[:place], bytes(flipped), *everything[place + 1 :]]
            with pytest.raises(DigestError):
                verify_inclusion(
                    bad[0], size=11, index=index, leaf=bad[1], proof=bad[2:]
                )


@pytest.mark.parametrize(
    ("sentence", "size", "index", "change"),
    [
        ("a hash too many", 11, 5, lambda proof: [*proof, proof[0]]),
        ("a hash too few", 11, 5, lambda proof: proof[:-1]),
        ("no proof at all", 11, 5, lambda proof: []),
        ("the root as its own proof", 1, 0, lambda proof: [prove(0, 1)[0]]),
        ("a short hash", 11, 5, lambda proof: [proof[0][:-1], *proof[1:]]),
        ("an empty hash", 11, 5, lambda proof: [b"", *proof]),
        ("order reversed", 11, 5, lambda proof: proof[::-1]),
    ],
)
def test_a_proof_of_the_wrong_shape_is_refused(
    sentence: str,
    size: int,
    index: int,
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    """A proof has exactly the hashes its leaf needs, 32 bytes each, in order."""
    root, leaf, proof = prove(index, size)
    with pytest.raises((MalformedError, DigestError)):
        verify_inclusion(root, size=size, index=index, leaf=leaf, proof=change(proof))


@pytest.mark.parametrize(("size", "index"), [(0, 0), (4, 4), (4, -1), (-1, 0)])
def test_an_index_outside_the_tree_is_refused(size: int, index: int) -> None:
    """There is no leaf number n in a tree of n."""
    root, leaf, proof = prove(0, 4)
    with pytest.raises(MalformedError):
        verify_inclusion(root, size=size, index=index, leaf=leaf, proof=proof)


def test_a_size_beyond_all_trees_is_refused() -> None:
    """A number chosen by an attacker never drives the loop."""
    root, leaf, _proof = prove(0, 1)
    with pytest.raises(LimitError):
        verify_inclusion(root, size=1 << 64, index=0, leaf=leaf, proof=[leaf] * 64)
