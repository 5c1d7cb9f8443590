"""Version order clause by clause, and counters against floors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core.errors import CounterError
from sealift.core.version import Version, above, compare, counter_floor

# The specification's own examples (UAPI.10 1.0), then rows for single clauses.
ROWS = [
    ("11", "==", "11"),
    ("systemd-123", "==", "systemd-123"),
    ("bar-123", "<", "foo-123"),
    ("123a", ">", "123"),
    ("123.a", ">", "123"),
    ("123.a", "<", "123.b"),
    ("123a", ">", "123.a"),
    ("11\u03b1", "==", "11\u03b2"),
    ("B", "<", "a"),
    ("", "<", "0"),
    ("0.", ">", "0"),
    ("0.0", ">", "0"),
    ("0", ">", "~"),
    ("", ">", "~"),
    ("1_", "==", "1"),
    ("_1", "==", "1"),
    ("1_", "<", "1.2"),
    ("1_2_3", ">", "1.3.3"),
    ("1+", "==", "1"),
    ("+1", "==", "1"),
    ("1+", "<", "1.2"),
    ("1+2+3", ">", "1.3.3"),
    ("1.0~rc1", "<", "1.0"),  # 2: a tilde is below the end
    ("1.0~rc1", "<", "1.0~rc2"),  # 2: both have one, go on behind it
    ("1.0~", "<", "1.0~a"),  # 3 after 2
    ("1.0-1", ">", "1.0"),  # 3: more is higher
    ("1-1", "<", "1^1"),  # 4: the minus is lower
    ("1^1", "<", "1.1"),  # 5: the caret is lower than what has none
    ("1.1", "<", "1a"),  # 6: so is the dot
    ("007", "==", "7"),  # 7: leading zeroes
    ("1.a", "<", "1.1"),  # 7: no number counts as 0
    ("1.10", ">", "1.9"),  # 7: as numbers, not as letters
    ("1ab", ">", "1a"),  # 8: the longer word
    ("٣", "==", ""),  # 1: digits of other scripts are no digits
]
LADDER = [
    *("122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1"),
    *("123^post1", "123.a-1", "123.1-1", "123a-1", "124-1"),
]
SIGNS = {"<": -1, "==": 0, ">": 1}
TEXTS = st.text(alphabet="019aAzZ.-~^_+\u03b1 ", max_size=12)


@pytest.mark.parametrize(("left", "relation", "right"), ROWS)
def test_order_is_the_specifications(left: str, relation: str, right: str) -> None:
    """Every example of the specification, both ways round."""
    assert compare(left, right) == SIGNS[relation]
    assert compare(right, left) == -SIGNS[relation]


def test_the_specifications_ladder_climbs() -> None:
    """Each entry is lower than every entry to its right."""
    for i, left in enumerate(LADDER):
        for j, right in enumerate(LADDER):
            assert compare(left, right) == (i > j) - (i < j)


@given(TEXTS, TEXTS, TEXTS)
def test_order_is_total(a: str, b: str, c: str) -> None:
    """Antisymmetric, transitive, and equal texts are equal versions with one hash."""
    assert compare(a, a) == 0
    assert compare(a, b) == -compare(b, a)
    low, middle, high = sorted([Version(a), Version(b), Version(c)])
    assert low <= middle <= high
    assert not high < low
    if Version(a) == Version(b):
        assert hash(Version(a)) == hash(Version(b))


def test_numbers_longer_than_python_reads_compare() -> None:
    """A hostile version of 10 000 digits is compared, not a ValueError."""
    assert compare("9" * 10_000, "1" + "0" * 10_000) == -1


def test_version_shows_its_text() -> None:
    """A version prints as it was written and equals nothing but versions."""
    assert str(Version("1.2")) == "1.2"
    assert repr(Version("1.2")) == "Version('1.2')"
    assert Version("1") != "1"


def test_W4_a_counter_below_the_floor_is_refused() -> None:
    """Equal and higher pass and come back, lower is a downgrade."""
    assert above(3, 3) == 3
    assert above(4, 3) == 4
    with pytest.raises(CounterError) as refused:
        above(2, 3, name="demo-board/rootfs-1.0.img")
    assert refused.value.code == "metadata.counter"
    assert refused.value.fields == {"counter": 2, "floor": 3}
    assert "demo-board/rootfs-1.0.img" in refused.value.message


def test_the_highest_memory_of_a_floor_counts() -> None:
    """A memory that knows nothing lowers nothing."""
    assert counter_floor() == 0
    assert counter_floor(None, None) == 0
    assert counter_floor(2, None, 5, 0) == 5
