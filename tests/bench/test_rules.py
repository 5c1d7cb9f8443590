"""Rules D1 to D38: every one is there, and every test it names exists."""

from __future__ import annotations

from tests.bench import rules


def test_every_rule_is_held_or_says_why_not() -> None:
    """No rule is forgotten, no test is only named."""
    assert not list(rules.faults())


def test_the_page_is_the_list() -> None:
    """docs/device-rules.md is as ``python -m tests.bench.rules`` writes it."""
    assert rules.PAGE.read_text("utf-8") == rules.page()
