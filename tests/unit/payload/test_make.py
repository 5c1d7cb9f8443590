"""Deltas: whatever two images are, the shipped decoder rebuilds the new one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core.container import Op
from sealift.core.errors import DeltaCancelledError, DeltaMemoryError, LengthError
from sealift.core.packer import Made
from sealift.payload.delta.make import OVERHEAD, Limits, Quality, make_delta
from sealift.payload.delta.quality import SMALL
from tests.unit.payload.images import (
    Bytes,
    checked_delta,
    code,
    delta,
    edited,
    noise,
)

MIB = 1 << 20


class Cut(Bytes):
    """An image that says it has one byte more."""

    @property
    def length(self) -> int:
        return len(self.raw) + 1


@pytest.mark.parametrize("seed", range(6))
def test_edits_come_through(seed: int) -> None:
    """Pieces changed, inserted, left out and moved: rebuilt, and far below the whole."""
    old = code(seed, 400_000)
    new = edited(old, seed, 40)
    report = checked_delta(old, new)
    assert report.packed.length < len(new) // 20


@pytest.mark.parametrize("length", [1, 65_535, 65_536, 65_537, 3 * 65_536, 200_001])
@pytest.mark.parametrize("base_length", [1, 70_000, 300_000])
def test_lengths_at_borders(length: int, base_length: int) -> None:
    """Segments cut anywhere; the base longer or shorter than the image."""
    old = noise(1, base_length)
    new = (old[500:] + code(2, length))[:length]
    checked_delta(old, new, segment_size=65_536)


@given(
    old=st.binary(min_size=1, max_size=300),
    new=st.binary(min_size=1, max_size=300),
    times=st.integers(1, 400),
)
@settings(max_examples=40, deadline=None)
def test_anything_comes_through(old: bytes, new: bytes, times: int) -> None:
    """Images nobody thought of."""
    checked_delta(old * times, (new + old) * times, segment_size=65_536)


def test_same_image_is_copies() -> None:
    """A base that is the image: not one frame."""
    image = noise(3, 300_000)
    report = checked_delta(image, image, segment_size=65_536)
    assert report.kinds[Op.COPY] == (5, 0)
    assert report.packed.length == report.packed.head_length


def test_unrelated_base_is_replaced() -> None:
    """Nothing in common: REPLACE, no larger than a full container."""
    report = checked_delta(noise(4, 200_000), noise(5, 200_000), segment_size=65_536)
    assert report.kinds[Op.REPLACE] == (4, 200_000)
    assert not report.worth(report.packed.length)


def test_zeros_are_not_copied() -> None:
    """A segment of zeros needs no base, an image of zeros nothing at all."""
    report = checked_delta(noise(6, 100), bytes(200_000), segment_size=65_536)
    assert report.kinds[Op.ZERO] == (4, 0)


def test_same_bytes_every_time() -> None:
    """Deterministic, in whatever order segments are made."""
    old = code(7, 300_000)
    new = edited(old, 7, 30)
    once, _ = delta(old, new, segment_size=65_536)

    def backwards(
        function: Callable[[int], Made], items: Iterable[int]
    ) -> Iterable[Made]:
        return reversed([function(item) for item in reversed(list(items))])

    again, _ = delta(old, new, segment_size=65_536, apply=backwards)
    assert once == again


def test_quality_of_small_images() -> None:
    """Small images are packed in several ways, unless it shall be quick."""
    new = code(8, 300_000)
    quick, balanced, best = (
        len(delta(b"old", new, quality=quality)[0]) for quality in Quality
    )
    assert balanced == best < quick


def test_quality_of_large_images() -> None:
    """Above that, each quality is a setting of its own; with time left, it is best."""
    plain = code(9, 100_000)
    assert len({quality.pack(plain, SMALL + 1) for quality in Quality}) == len(Quality)
    spared = Quality.BALANCED.pack(plain, SMALL + 1, spare=True)
    assert len(spared) <= len(Quality.BEST.pack(plain, SMALL + 1))


def test_cancel_ends_it() -> None:
    """Once nobody waits, the next step does not begin."""
    asked: list[int] = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(DeltaCancelledError):
        checked_delta(noise(9, 100_000), noise(9, 100_000), cancel=cancel)
    assert len(asked) == 3


def test_progress_counts_bytes() -> None:
    """Each step goes from its begin to its end."""
    seen: dict[str, list[tuple[int, int]]] = {}
    old = noise(10, 3 * MIB)
    checked_delta(
        old,
        old[5:],
        progress=lambda step, done, total: seen.setdefault(step, []).append(
            (done, total)
        ),
    )
    assert list(seen) == ["reading", "matching", "packing"]
    for step in seen:
        done, total = seen[step][-1]
        assert done == total


def test_too_little_memory_is_said() -> None:
    """A budget no window fits into is refused before anything is read."""
    with pytest.raises(DeltaMemoryError):
        delta(b"a", b"b", limits=Limits(memory=OVERHEAD + MIB))


def test_image_shorter_than_it_said() -> None:
    """A file cut while it was read is not taken for the image."""
    with pytest.raises(LengthError):
        make_delta(Bytes(b"base"), Cut(b"new"), out=io.BytesIO(), spool=io.BytesIO())
