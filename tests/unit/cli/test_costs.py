"""How an image travels, in words: what an operator reads in tables."""

from __future__ import annotations

from typing import Any

import pytest

from sealift.cli.costs import drift, way


def row(offer: dict[str, Any] | None, done: dict[str, Any] | None = None) -> Any:
    full = {"method": None, "base_sha256": None, "held": None, "detail": None}
    took = {"method": None, "transferred": None, "repaired": None}
    return {
        "offer": None if offer is None else {**full, "bytes": 2048, **offer},
        "done": None if done is None else {**took, **done},
    }


@pytest.mark.parametrize(
    ("offer", "done", "words"),
    [
        (None, None, None),
        ({"method": "delta"}, None, "delta 2.0 KiB"),
        ({"method": "delta"}, {"method": "delta"}, "delta 2.0 KiB"),
        (
            {"method": "delta"},
            {"method": "delta", "transferred": 3072, "repaired": 2},
            "delta 2.0 KiB, took 3.0 KiB, 2 segments of the base repaired",
        ),
        (
            {"method": "delta"},
            {"method": "full", "transferred": 9, "repaired": 0},
            "delta 2.0 KiB, took full 9 B",
        ),
        (
            {"held": "budget", "detail": "full costs 9, 5 are allowed"},
            None,
            "held (budget): full costs 9, 5 are allowed",
        ),
    ],
)
def test_one_installation(offer: Any, done: Any, words: str | None) -> None:
    """Offered, taken, repaired or held: one line that says which, with figures."""
    assert way(row(offer, done)) == words


def test_drift() -> None:
    """Expected against real, in bytes and per cent; nothing before anybody told."""
    told = {"installations": 3, "expected": 2048, "transferred": 3072, "repaired": 1}
    assert drift(told) == (  # type: ignore[arg-type]
        "3.0 KiB of 2.0 KiB expected (+50.0 %), 1 found a changed base"
    )
    nobody = {"installations": 0, "expected": 0, "transferred": 0, "repaired": 0}
    assert drift(nobody) is None  # type: ignore[arg-type]
    nothing = {**nobody, "installations": 1}
    assert drift(nothing) == "0 B of 0 B expected"  # type: ignore[arg-type]
