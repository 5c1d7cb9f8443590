"""When to poll: within bounds, apart from the others, patient after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent import schedule

CHANCE = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("configured", "dictated", "expected"),
    [
        (900, None, 900),
        (900, 300, 300),
        (900, 0, schedule.SHORTEST),
        (900, -5, schedule.SHORTEST),
        (900, 10**9, schedule.LONGEST),
        (0.1, None, schedule.SHORTEST),
    ],
)
def test_server_dictates_the_interval_within_bounds(
    configured: float, dictated: float | None, expected: float
) -> None:
    """The server may ask for another interval, never for a flood or for silence."""
    assert schedule.interval(configured, dictated) == expected


@given(seconds=st.floats(1, 86_400), jitter=st.floats(0, 0.5), chance=CHANCE)
def test_jitter_stays_in_its_part(seconds: float, jitter: float, chance: float) -> None:
    """Each wait is longer or shorter by at most the configured part."""
    found = schedule.wait(seconds, jitter, chance)
    assert abs(found - seconds) <= seconds * (jitter + 1e-9)  # what floats round


@given(failures=st.integers(1, 10_000), chance=CHANCE)
def test_back_off_grows_to_the_interval_and_no_further(
    failures: int, chance: float
) -> None:
    """A long outage ends in polling at the usual pace, not in silence."""
    found = schedule.retry(failures, 900, None, chance)
    assert schedule.FIRST_RETRY / 2 <= found <= 900
    if failures > 10:
        assert found >= 450


@given(asked=st.floats(-10, 10**7), chance=CHANCE)
def test_retry_after_is_obeyed_within_a_day(asked: float, chance: float) -> None:
    """`Retry-After` is a floor, and the floor is spread and bounded."""
    found = schedule.retry(1, 900, asked, chance)
    assert found >= min(asked, schedule.LONGEST)
    assert found <= max(15, schedule.LONGEST * 1.25)
