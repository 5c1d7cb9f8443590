"""Strategies: by size and memory, and each gives a delta the decoder rebuilds from."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from sealift.payload.delta import match as matching
from sealift.payload.delta import windows as cutting
from sealift.payload.delta.blocks import BLOCK, block_size, find_shared
from sealift.payload.delta.covers import Cover
from sealift.payload.delta.engine import hdiffpatch_covers
from sealift.payload.delta.extents import Extents, placed
from sealift.payload.delta.make import OVERHEAD, Limits
from sealift.payload.delta.match import Strategy
from tests.unit.payload.images import Bytes, checked_delta, code, edited, noise

MIB = 1 << 20
GIB = 1 << 30
ROOMY = Limits(memory=OVERHEAD + GIB)


def shuffled(raw: bytes, seed: int) -> bytes:
    """The same blocks in another order."""
    blocks = [raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)]
    random.Random(seed).shuffle(blocks)
    return b"".join(blocks)


# ── blocks ───────────────────────────────────────────────────────────────────────────
def nothing(_piece: bytes) -> None:
    """Look away."""


def test_moved_blocks_are_found() -> None:
    """Every block that moved is found where it was; nothing is changed or vanished."""
    old = noise(1, 64 * BLOCK)
    new = shuffled(old, 2)
    shared = find_shared(Bytes(old), Bytes(new), BLOCK, nothing, nothing)
    assert sum(cover.length for cover in shared.covers) == len(new)
    assert all(
        new[c.new : c.new + c.length] == old[c.base : c.base + c.length]
        for c in shared.covers
    )
    assert not shared.changed.total
    assert not shared.vanished.total


def test_runs_are_continued() -> None:
    """Of equal blocks the one that continues the run is taken: one cover, not many."""
    old = noise(3, BLOCK) * 40 + noise(4, BLOCK) + noise(3, BLOCK) * 3
    shared = find_shared(Bytes(old), Bytes(old), BLOCK, nothing, nothing)
    assert len(shared.covers) == 1


def test_changed_and_vanished_are_what_is_left() -> None:
    """Blocks of one image only, without zeros; a short last block counts."""
    kept, gone, fresh = noise(5, 4 * BLOCK), noise(6, 3 * BLOCK), noise(7, 2 * BLOCK)
    old = kept + bytes(BLOCK) + gone + gone + b"tail"
    new = bytes(2 * BLOCK) + fresh + kept + b"end"
    shared = find_shared(Bytes(old), Bytes(new), BLOCK, nothing, nothing)
    assert shared.changed.read(Bytes(new)) == fresh + b"end"
    assert shared.vanished.read(Bytes(old)) == gone + b"tail"


def test_images_are_seen_whole() -> None:
    """What is read on the way is every byte, in order."""
    old, new = noise(8, 3 * MIB + 5), noise(9, MIB + 7)
    seen_old, seen_new = bytearray(), bytearray()
    find_shared(Bytes(old), Bytes(new), BLOCK, seen_old.extend, seen_new.extend)
    assert bytes(seen_old) == old
    assert bytes(seen_new) == new


def test_blocks_grow_with_the_image() -> None:
    """The tables of the largest images fit into the usual budget, and into a small one."""
    assert block_size(400 * MIB, 400 * MIB, GIB) == BLOCK
    assert block_size(64 * GIB, 64 * GIB, 2 * GIB) == BLOCK
    assert block_size(64 * GIB, 64 * GIB, 100 * MIB) == 16 * BLOCK


# ── streams ──────────────────────────────────────────────────────────────────────────
def test_places_of_a_stream() -> None:
    """A place in a stream is one in the image, and a cover comes apart at joints."""
    extents = Extents([(100, 110), (110, 120), (200, 230)])
    assert len(extents) == 2
    assert list(extents.places(15, 25)) == [(115, 120), (200, 205)]
    assert list(extents.part(19, 21)) == [(119, 120), (200, 201)]
    base = Extents([(0, 8), (50, 90)])
    assert list(placed([Cover(15, 5, 10)], extents, base)) == [
        Cover(115, 5, 3),
        Cover(118, 50, 2),
        Cover(200, 52, 5),
    ]


# ── strategies ───────────────────────────────────────────────────────────────────────
@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of a megabyte are treated like those of gigabytes."""
    monkeypatch.setattr(matching, "WHOLE_MAX", 1000)
    monkeypatch.setattr(cutting, "CELL", 1 << 14)
    monkeypatch.setattr(cutting, "WIDTHS", (1 << 17, 1 << 16))


def pair(seed: int) -> tuple[bytes, bytes]:
    """Images of about 2 MiB: blocks kept and moved, files edited and shifted."""
    kept, files = (
        noise(seed, 64 * BLOCK),
        code(seed, 400_000) + noise(seed + 1, 900_000),
    )
    old = kept + files + bytes(5 * BLOCK)
    new = bytes(BLOCK) + shuffled(kept, seed) + edited(files, seed, 25)
    return old, new


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blocks_then_one_comparison(seed: int) -> None:
    """Kept blocks are found first, what is left is compared: near one comparison."""
    old, new = pair(seed)
    report = checked_delta(old, new, limits=ROOMY)
    assert report.strategy is Strategy.BLOCKS
    assert report.packed.length < 40_000


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_windows_where_memory_is_short(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each window finds its part of the base, and none takes more than it may."""
    old, new = pair(seed)
    monkeypatch.setattr(cutting, "SPARE", 0)
    compared: list[tuple[int, int]] = []

    def engine(base: bytes, fresh: bytes) -> Iterable[Cover]:
        compared.append((len(base), len(fresh)))
        return hdiffpatch_covers(base, fresh)

    memory = 2 * MIB
    report = checked_delta(old, new, limits=Limits(OVERHEAD + memory), engine=engine)
    assert report.strategy is Strategy.WINDOWS
    assert len(compared) > 5
    assert all(cutting.engine_memory(*sizes) <= memory for sizes in compared)
    assert report.packed.length < 150_000


@pytest.mark.usefixtures("small_is_large")
def test_nothing_to_compare() -> None:
    """The same image, and one with nothing in common: no engine is asked."""

    def engine(base: bytes, new: bytes) -> Iterable[Cover]:
        assert base
        assert new
        return ()

    image = noise(1, 40 * BLOCK)
    checked_delta(image, image, limits=ROOMY, engine=engine)
    checked_delta(bytes(40 * BLOCK), image, limits=ROOMY, engine=engine)
    tight = Limits(OVERHEAD + 12 * MIB)
    checked_delta(noise(2, 500 * BLOCK), image * 9, limits=tight, engine=engine)


def test_small_images_are_compared_whole() -> None:
    """The usual case of a microcontroller."""
    report = checked_delta(noise(1, 1000), noise(1, 2000))
    assert report.strategy is Strategy.WHOLE
