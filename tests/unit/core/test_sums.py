"""Bytes added mod 256: as one by one, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core.sums import SIZE, add, subtract


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_all_bytes_are_added_as_one_by_one(one: bytes, other: bytes) -> None:
    """One large number gives what 300 small ones give; subtracting undoes it."""
    other = (other * 300)[: len(one)].ljust(len(one), b"\xff")
    want = bytes((a + b) % 256 for a, b in zip(one, other, strict=True))
    assert add(one, other) == want
    assert subtract(want, other) == one


@pytest.mark.parametrize("low", [b"\0", b"\x7f", b"\x80", b"\xff"])
@pytest.mark.parametrize("high", [b"\0", b"\x01", b"\x7f", b"\x80", b"\xff"])
def test_no_byte_carries_into_its_neighbour(low: bytes, high: bytes) -> None:
    """Sums at the borders of seven and eight bits, as many as go at once."""
    want = bytes([(low[0] + high[0]) % 256]) * SIZE
    assert add(low * SIZE, high * SIZE) == want
    assert subtract(want, high * SIZE) == low * SIZE
