"""Which bytes a download asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.server.domain.ranges import Part, Unsatisfiable, Whole, wanted

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("sentence", "header", "if_range", "expected"),
    [
        ("none", None, None, Whole()),
        ("the beginning", "bytes=0-9", None, Part(0, 10)),
        ("the middle", "bytes=10-19", None, Part(10, 20)),
        ("to the end", "bytes=90-", None, Part(90, 100)),
        ("beyond the end", "bytes=90-999", None, Part(90, 100)),
        ("the last bytes", "bytes=-10", None, Part(90, 100)),
        ("more last bytes than there are", "bytes=-999", None, Part(0, 100)),
        ("one byte", "bytes=0-0", None, Part(0, 1)),
        ("after the end", "bytes=100-", None, Unsatisfiable()),
        ("no last bytes", "bytes=-0", None, Unsatisfiable()),
        ("backwards", "bytes=9-0", None, Whole()),
        ("two ranges", "bytes=0-1,5-6", None, Whole()),
        ("other units", "lines=0-1", None, Whole()),
        ("nonsense", "bytes=a-b", None, Whole()),
        ("other digits", "bytes=\u0661-\u0662", None, Whole()),
        ("a huge number", "bytes=0-" + "9" * 30, None, Whole()),
        ("the same file", "bytes=10-19", ETAG, Part(10, 20)),
        ("another file", "bytes=10-19", '"other"', Whole()),
        ("a weak tag", "bytes=10-19", 'W/"abc"', Whole()),
    ],
)
def test_ranges(
    sentence: str, header: str | None, if_range: str | None, expected: object
) -> None:
    """RFC 9110, section 14, for one range at a time."""
    assert wanted(header, if_range, ETAG, 100) == expected, sentence


@given(st.text(max_size=30), st.integers(0, 2**40))
def test_never_outside_the_file(header: str, length: int) -> None:
    """Whatever is asked, what is answered lies within the file."""
    found = wanted("bytes=" + header, None, ETAG, length)
    if isinstance(found, Part):
        assert 0 <= found.start < found.stop <= length
