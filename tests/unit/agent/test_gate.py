"""The gate: power, consent, windows in local time, and what happens when unsure."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.gate import Closed, Consent, Facts, Open, Policy, Window, decide

MONDAY = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Window(frozenset(range(5)), time(2, 0), timedelta(hours=3))


def at(text: str) -> Facts:
    return Facts(datetime.fromisoformat(text).replace(tzinfo=UTC))


def test_without_a_policy_it_is_open() -> None:
    """No window, no conditions: always."""
    assert decide(Policy(), Facts(MONDAY)) == Open()


@pytest.mark.parametrize(
    ("policy", "facts", "reason"),
    [
        ({"mains_needed": True}, {"on_mains": True}, None),
        ({"mains_needed": True}, {"on_mains": False}, "power"),
        ({"mains_needed": True}, {}, "power"),  # no sensor fails closed
        ({"battery_percent_min": 40}, {"battery_percent": 40}, None),
        ({"battery_percent_min": 40}, {"battery_percent": 39}, "power"),
        ({"battery_percent_min": 40}, {"battery_percent": 3, "on_mains": True}, None),
        ({"battery_percent_min": 40}, {}, "power"),
        ({"consent": Consent.OPTIONAL}, {}, "consent"),
        ({"consent": Consent.OPTIONAL}, {"consented": True}, None),
        ({"consent": Consent.FORCED}, {}, None),
        ({}, {"postponed_until": MONDAY + timedelta(hours=1)}, "postponed"),
        ({}, {"postponed_until": MONDAY - timedelta(hours=1)}, None),
        ({"windows": (NIGHTS,)}, {"clock_trusted": False}, "clock"),
        (
            {"windows": (NIGHTS,), "wait_when_unsure": False},
            {"clock_trusted": False},
            None,
        ),
    ],
)
def test_conditions(
    policy: dict[str, object], facts: dict[str, object], reason: str | None
) -> None:
    """Safety first, then consent, then the clock: the reason is one word."""
    found = decide(
        dataclasses.replace(Policy(), **policy),  # type: ignore[arg-type]
        dataclasses.replace(Facts(MONDAY), **facts),  # type: ignore[arg-type]
    )
    assert (found.reason if isinstance(found, Closed) else None) == reason


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-01-05T00:59:59", False),  # 01:59:59 in Berlin
        ("2026-01-05T01:00:00", True),
        ("2026-01-05T03:59:59", True),
        ("2026-01-05T04:00:01", False),
        ("2026-01-10T02:00:00", False),  # a Saturday
    ],
)
def test_a_window_is_in_local_wall_time(now: str, *, opens: bool) -> None:
    """Weekdays 02:00 to 05:00 in Berlin, which is UTC+1 in winter."""
    policy = Policy(windows=(NIGHTS,), zone=BERLIN)
    assert isinstance(decide(policy, at(now)), Open) is opens


def test_a_closed_window_says_when_it_opens() -> None:
    """Saturday noon: until Monday 02:00 in Berlin."""
    found = decide(Policy(windows=(NIGHTS,), zone=BERLIN), at("2026-01-10T11:00:00"))
    assert found == Closed("window", timedelta(days=1, hours=14).total_seconds())


def test_what_does_not_fit_any_more_is_not_begun() -> None:
    """An hour is expected and half of one is left; it waits for the next night."""
    policy = Policy(windows=(NIGHTS,), zone=BERLIN, expected=timedelta(hours=1))
    assert isinstance(decide(policy, at("2026-01-05T03:00:00")), Open)
    found = decide(policy, at("2026-01-05T03:30:00"))
    assert found == Closed("window", timedelta(hours=21, minutes=30).total_seconds())


def test_a_window_may_pass_midnight() -> None:
    """22:00 for six hours: open at one in the night of the next day."""
    late = Window(frozenset({0}), time(22, 0), timedelta(hours=6))
    assert isinstance(decide(Policy(windows=(late,)), at("2026-01-06T01:00:00")), Open)
    assert isinstance(
        decide(Policy(windows=(late,)), at("2026-01-06T04:00:01")), Closed
    )


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-29T00:59:59", False),
        ("2026-03-29T01:00:00", True),  # 03:00 CEST, the first instant after the jump
        ("2026-03-29T01:59:59", True),
        ("2026-03-29T02:00:01", False),  # an hour has elapsed
    ],
)
def test_a_start_in_the_skipped_hour(now: str, *, opens: bool) -> None:
    """02:30 does not exist on that Sunday; the window opens when clocks have jumped."""
    window = Window(frozenset({6}), time(2, 30), timedelta(hours=1))
    policy = Policy(windows=(window,), zone=BERLIN)
    assert isinstance(decide(policy, at(now)), Open) is opens


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-10-25T00:30:00", True),  # 02:30 CEST, the first of two
        ("2026-10-25T01:29:59", True),
        ("2026-10-25T01:30:01", False),  # 02:30 CET, the second, does not count
    ],
)
def test_a_start_in_the_hour_that_comes_twice(now: str, *, opens: bool) -> None:
    """Only the first counts, and the length is elapsed time."""
    window = Window(frozenset({6}), time(2, 30), timedelta(hours=1))
    policy = Policy(windows=(window,), zone=BERLIN)
    assert isinstance(decide(policy, at(now)), Open) is opens


@given(
    st.integers(0, 6 * 365 * 86_400).map(lambda s: MONDAY + timedelta(seconds=s)),
    st.integers(0, 6),
    st.integers(0, 23),
    st.integers(1, 47),
)
def test_when_it_says_it_opens_it_is_open(
    now: datetime, day: int, hour: int, length: int
) -> None:
    """Wait as long as told, look again: open. It is never told to wait for ever."""
    window = Window(frozenset({day}), time(hour), timedelta(hours=length))
    policy = Policy(windows=(window,), zone=BERLIN)
    found = decide(policy, Facts(now))
    if isinstance(found, Closed):
        assert 0 < found.seconds <= timedelta(days=8).total_seconds()
        later = now + timedelta(seconds=found.seconds + 1)
        assert decide(policy, Facts(later)) == Open()


def test_a_window_without_days_never_opens() -> None:
    """And says to look again tomorrow, which finds a new policy, if there is one."""
    never = Window(frozenset(), time(2), timedelta(hours=1))
    found = decide(Policy(windows=(never,)), Facts(MONDAY))
    assert found == Closed("window", 86_400.0)
