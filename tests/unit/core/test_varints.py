"""Numbers in a container: one form each, at most nine bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core.errors import LimitError, PatchError
from sealift.core.varints import read_svarint, read_varint, svarint, varint


@given(st.integers(0, 2**63 - 1))
def test_varints_are_minimal_and_come_back(value: int) -> None:
    """A number has one form of at most nine bytes."""
    raw = varint(value)
    assert len(raw) == max(1, -(-value.bit_length() // 7)) <= 9
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(raw)) == value


@given(st.integers(-(2**62), 2**62 - 1), st.binary(max_size=3))
def test_signed_numbers_come_back(value: int, behind: bytes) -> None:
    """Read where they stand, and no byte further."""
    raw = b"ab" + svarint(value) + behind
    assert read_svarint(raw, 2, PatchError) == (value, len(raw) - len(behind))


def test_zigzag_keeps_small_numbers_small() -> None:
    """0, -1, 1, -2 are the codes 0, 1, 2, 3."""
    assert [svarint(n) for n in (0, -1, 1, -2)] == [b"\0", b"\1", b"\2", b"\3"]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", PatchError),
        (b"\x80", PatchError),
        (b"\x80" * 8, PatchError),
        (b"\x80\x00", PatchError),
        (b"\xff" * 8 + b"\x00", PatchError),
        (b"\xff" * 9, LimitError),
        (b"\x80" * 9 + b"\x01", LimitError),
    ],
)
def test_other_forms_are_refused(raw: bytes, error: type[Exception]) -> None:
    """Cut short, padded, or longer than nine bytes."""
    with pytest.raises(error):
        read_varint(raw, 0, PatchError)
    with pytest.raises(error):
        read_varint(b"\x01" + raw, 1, PatchError)
