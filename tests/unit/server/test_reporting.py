"""Telling a report that continues a history from one that repeats or forks it."""

from __future__ import annotations

import pytest

from sealift.server.domain.reporting import Arrived, Known, Verdict, judge

NEWEST_FIRST = ("cc", "bb", "aa")
KNOWN = Known(counter=7, hashes=NEWEST_FIRST)


@pytest.mark.parametrize(
    ("sentence", "arrived", "verdict"),
    [
        ("the next one", Arrived("dd", 8, "cc", gap=False), Verdict.ACCEPTED),
        ("a jump in the counter", Arrived("dd", 99, "cc", gap=False), Verdict.ACCEPTED),
        ("the newest again", Arrived("cc", 7, "bb", gap=False), Verdict.REPLAY),
        ("an old one again", Arrived("aa", 5, None, gap=False), Verdict.REPLAY),
        (
            "the newest counter, other words",
            Arrived("dd", 7, "bb", gap=False),
            Verdict.FORK,
        ),
        ("extends an earlier one", Arrived("dd", 8, "bb", gap=False), Verdict.FORK),
        (
            "extends an earlier one, old counter",
            Arrived("dd", 6, "aa", gap=False),
            Verdict.FORK,
        ),
        (
            "extends an earlier one, says gap",
            Arrived("dd", 8, "bb", gap=True),
            Verdict.FORK,
        ),
        ("from before our memory", Arrived("dd", 3, "zz", gap=False), Verdict.REPLAY),
        ("reports were given up", Arrived("dd", 20, "zz", gap=True), Verdict.ACCEPTED),
        (
            "something is missing",
            Arrived("dd", 20, "zz", gap=False),
            Verdict.UNCONNECTED,
        ),
        ("begins anew", Arrived("dd", 20, None, gap=False), Verdict.UNCONNECTED),
        (
            "old counter after the newest",
            Arrived("dd", 2, "cc", gap=False),
            Verdict.REPLAY,
        ),
    ],
)
def test_known_device(sentence: str, arrived: Arrived, verdict: Verdict) -> None:
    """Every row of the clone detection table."""
    assert judge(KNOWN, arrived) is verdict, sentence


@pytest.mark.parametrize("previous", [None, "zz"])
def test_first_report(previous: str | None) -> None:
    """Without a history (also after a restored database) any chain may begin."""
    arrived = Arrived("aa", 5, previous, gap=False)
    assert judge(Known(0, ()), arrived) is Verdict.ACCEPTED
