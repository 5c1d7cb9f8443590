"""Sums of the transport: too slow, and fast enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.transport.pace import Bucket, Pace
from sealift.core.errors import SlowTransferError


def run(pace: Pace, steps: list[tuple[float, int]]) -> float | None:
    """Seconds waited until it is too slow; ``None`` if it never is."""
    waited = 0.0
    for seconds, count in steps:
        waited += seconds
        try:
            pace.add(seconds, count)
        except SlowTransferError:
            return waited
    return None


ROWS: list[tuple[str, list[tuple[float, int]], float | None]] = [
    ("twice the lowest rate for an hour", [(1, 2048)] * 3600, None),
    ("exactly the lowest rate", [(1, 1024)] * 600, None),
    ("a byte less each second", [(1, 1023)] * 600, 60),
    ("E4: one byte per 1.5 s", [(1.5, 1)] * 100, 60),
    ("nothing at all", [(1, 0)] * 100, 60),
    ("slow for 59 s, over before anybody may judge", [(1, 1)] * 59, None),
    ("a burst of 2 s, then a stall", [(1.0, 1 << 20)] * 2 + [(1.0, 0)] * 100, 62),
    ("a pause of 50 s between bursts", ([(1.0, 100_000)] + [(1.0, 0)] * 50) * 20, None),
]


@pytest.mark.parametrize(("sentence", "steps", "end"), ROWS)
def test_e4_the_lowest_rate_over_any_window(
    sentence: str, steps: list[tuple[float, int]], end: float | None
) -> None:
    """1024 bytes per second over any 60 s, however the bytes are spread."""
    found = run(Pace(1024, 60, 1 << 40), steps)
    if end is None:
        assert found is None
    else:
        assert found is not None
        assert end <= found <= end + 2


def test_e4_the_deadline_holds_whatever_the_windows_say() -> None:
    """Length / rate + 60 s is the end, even for a server that goes on and on."""
    steps = [(1.0, 1025)] * 10_000
    assert run(Pace(1024, 60, 102_400), steps) == pytest.approx(161, abs=1)


def test_a_judge_remembers_little() -> None:
    """Marks are a few per window, not one per read."""
    pace = Pace(1, 60, 1 << 60)
    for _ in range(200_000):
        pace.add(0.001, 1000)
    assert len(pace._marks) < 70


@given(st.lists(st.tuples(st.integers(1, 200_000), st.floats(0, 5)), max_size=60))
def test_the_bucket_holds_its_rate(steps: list[tuple[int, float]]) -> None:
    """Whoever sleeps as told never takes more than rate times time plus one second's worth."""
    bucket, now, total = Bucket(50_000, 0.0), 0.0, 0
    for count, pause in steps:
        now += pause
        now += bucket.take(count, now)
        total += count
        assert total <= 50_000 * (now + 1) + 1


def test_an_idle_bucket_does_not_save_up() -> None:
    """After a quiet hour, one second's worth comes at once and no more."""
    bucket = Bucket(1000, 0.0)
    assert bucket.take(1000, 3600) == 0
    assert bucket.take(1000, 3600) == pytest.approx(1)
