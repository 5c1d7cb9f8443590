"""The engine's results: read within bounds, refused where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import hdiffpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core.errors import EngineError
from sealift.payload.delta.covers import Cover, Covers, checked, merged
from sealift.payload.delta.engine import MAGIC, hdiffpatch_covers, read_covers
from sealift.payload.delta.quality import Quality
from tests.unit.payload.images import checked_delta, code, delta, edited, noise

OLD = code(1, 60_000)
NEW = edited(OLD, 2, 12)
FOUND = hdiffpatch.diff(OLD, NEW, compression="none", validate=False)


def test_covers_are_where_the_bytes_are() -> None:
    """Most of a cover is equal bytes, and covers ascend."""
    covers = list(hdiffpatch_covers(OLD, NEW))
    equal = sum(
        a == b
        for cover in covers
        for a, b in zip(
            OLD[cover.base : cover.base + cover.length],
            NEW[cover.new : cover.new + cover.length],
            strict=True,
        )
    )
    assert equal > 0.9 * len(NEW)
    assert covers == sorted(covers, key=lambda cover: cover.new)


@pytest.mark.parametrize("cut", [0, 5, len(MAGIC), len(MAGIC) + 3, 40])
def test_cut_results_are_refused(cut: int) -> None:
    """A result that ends early is no result."""
    with pytest.raises(EngineError):
        list(read_covers(FOUND[:cut], len(OLD), len(NEW)))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HDIFF13&zlib\0" + bytes(20), id="compressed"),
        pytest.param(MAGIC + b"\xff" * 40, id="number too large"),
        pytest.param(
            MAGIC + b"\x02\x01\x7f\x03" + bytes(20), id="more covers than bytes"
        ),
        pytest.param(MAGIC + b"\x02\x01\x00\x03" + bytes(20), id="bytes left over"),
        pytest.param(MAGIC + b"\x02\x01\x00\x00\x01" + bytes(9), id="packed covers"),
        pytest.param(MAGIC + b"\x03\x01" + bytes(20), id="other images"),
    ],
)
def test_nonsense_is_refused(raw: bytes) -> None:
    """Every number of the format is bounded by what it is about."""
    with pytest.raises(EngineError):
        list(read_covers(raw, 1, 2))


@given(st.integers(len(MAGIC), len(FOUND) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_changed_results_stay_in_bounds(at: int, flip: int) -> None:
    """Whatever a byte of the result becomes: refused, or within both images."""
    raw = bytearray(FOUND)
    raw[at] ^= flip
    try:
        covers = checked(
            read_covers(bytes(raw), len(OLD), len(NEW)), len(OLD), len(NEW)
        )
    except EngineError:
        return
    assert all(c.base + c.length <= len(OLD) for c in covers)
    assert all(c.new + c.length <= len(NEW) for c in covers)


@pytest.mark.parametrize(
    "lies",
    [
        [Cover(0, 1, len(OLD))],
        [Cover(1, 0, len(NEW))],
        [Cover(0, -1, 10)],
        [Cover(-1, 0, 10)],
        [Cover(0, 0, 0)],
        [Cover(0, 0, 10), Cover(9, 0, 10)],
        [Cover(50, 0, 10), Cover(0, 0, 10)],
        [Cover(0, 1 << 63, 10)],
    ],
)
def test_lying_engine_is_refused(lies: list[Cover]) -> None:
    """An engine that leaves its images ends the delta with its own error."""
    with pytest.raises(EngineError):
        delta(OLD, NEW, engine=lambda _base, _new: lies)


def test_bad_covers_cost_bytes_only() -> None:
    """Covers that resemble nothing: the decoder still rebuilds the image."""

    def useless(base: bytes, new: bytes) -> Iterator[Cover]:
        for at in range(0, min(len(base), len(new)) - 4000, 4000):
            yield Cover(at, len(base) - 4000 - at, 3000)

    report = checked_delta(noise(1, 90_000), NEW, engine=useless, segment_size=65_536)
    assert report.packed.length < len(NEW) + 1000


def test_engine_that_finds_nothing() -> None:
    """Without covers everything is REPLACE."""
    checked_delta(OLD, NEW, engine=lambda _base, _new: [], segment_size=65_536)


def test_more_ops_than_a_frame_may_have() -> None:
    """A segment that would pass the format's limit is written as it is."""

    def crumbs(_base: bytes, new: bytes) -> Iterator[Cover]:
        for at in range(0, len(new) - 8, 8):
            yield Cover(at, at * 7919 % 50_000, 4)

    new = noise(3, 1 << 20)
    report = checked_delta(noise(4, 60_000), new, engine=crumbs, quality=Quality.QUICK)
    assert report.packed.length == len(new) + report.packed.head_length


# ── lists of covers ──────────────────────────────────────────────────────────────────
def covers(*found: tuple[int, int, int]) -> Covers:
    made = Covers()
    for new, base, length in found:
        made.add(new, base, length)
    return made


def test_continued_covers_are_one() -> None:
    """A cover that goes on where the last ended, in both images, prolongs it."""
    assert len(covers((0, 5, 10), (10, 15, 5), (15, 21, 5))) == 2


def test_within_cuts_at_both_ends() -> None:
    """Of covers that cross a border, the part inside, moved along in the base."""
    found = covers((0, 100, 10), (20, 0, 30), (60, 7, 1))
    assert list(found.within(5, 25)) == [Cover(5, 105, 5), Cover(20, 0, 5)]
    assert list(found.within(10, 20)) == []
    assert list(found.within(49, 61)) == [Cover(49, 29, 1), Cover(60, 7, 1)]


def test_merged_in_order() -> None:
    """Two lists that lie in each other's gaps become one."""
    one, two = covers((0, 0, 5), (20, 0, 5)), covers((5, 5, 5), (30, 0, 5))
    assert list(merged(one, two)) == [Cover(0, 0, 10), Cover(20, 0, 5), Cover(30, 0, 5)]
