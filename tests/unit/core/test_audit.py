"""The audit leaf: one byte string per event, nothing in it that could be obeyed."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core import canonical as olpc
from sealift.core.audit import (
    LEAF_BYTES_MAX,
    Actor,
    ActorType,
    Event,
    Kind,
    Ref,
    canonical,
    leaf_bytes,
    leaf_hash,
    printable,
)
from sealift.core.errors import FormatError, LimitError, MalformedError

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_envelope_byte_for_byte() -> None:
    """Members sorted, no white space, absent members left out."""
    event = Event(
        id="00" * 16,
        kind=Kind.DEVICE_REVOKED,
        at=NOON,
        actor=Actor(ActorType.TOKEN, "operator"),
        refs=(Ref("device", "dev-0001"), Ref("manifest", "7", "ab" * 32)),
        body={"reason": "lost in Zürich"},
    )
    assert (
        leaf_bytes(event)
        == (
            '{"actor":{"id":"operator","type":"token"},"body":{"reason":"lost in Zürich"},'
            '"id":"00000000000000000000000000000000","kind":"device.revoked",'
            '"refs":[{"id":"dev-0001","type":"device"},'
            '{"id":"7","sha256":"' + "ab" * 32 + '","type":"manifest"}],'
            '"schema":1,"tenant":"default","time_server":"2026-11-22T12:00:00Z"}'
        ).encode()
    )


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (b"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (
            b"L123456",
            "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56",
        ),
    ],
)
def test_leaf_hash_known_answers(leaf: bytes, expected: str) -> None:
    """The fixed points of the design page, section 4.1."""
    assert leaf_hash(leaf).hex() == expected
    assert leaf_hash(leaf) == sha256(b"\0" + leaf).digest()


@pytest.mark.parametrize(
    ("sentence", "value", "error"),
    [
        ("a float", {"a": 1.0}, MalformedError),
        ("not a number", {"a": float("nan")}, MalformedError),
        ("bytes", {"a": b"x"}, MalformedError),
        ("a member with capitals", {"A": 1}, MalformedError),
        ("a member with a dash", {"a-b": 1}, MalformedError),
        ("an empty member", {"": 1}, MalformedError),
        ("a member ending in a newline", {"a\n": 1}, MalformedError),
        ("a newline", {"a": "x\ny"}, MalformedError),
        ("an escape", {"a": "\x1b[2J"}, MalformedError),
        ("DEL", {"a": "\x7f"}, MalformedError),
        ("C1", {"a": "\x85"}, MalformedError),
        ("right to left override", {"a": "\u202e"}, MalformedError),
        ("an isolate", {"a": "\u2066"}, MalformedError),
        ("a lone surrogate", {"a": "\ud800"}, MalformedError),
        ("not in NFC", {"a": "e\u0301"}, MalformedError),
        ("an integer too large", {"a": 2**53}, LimitError),
        ("an integer too small", {"a": -(2**53)}, LimitError),
        ("nested nine deep", [[[[[[[[[1]]]]]]]]], LimitError),
        ("too long", {"a": "x" * LEAF_BYTES_MAX}, LimitError),
    ],
)
def test_refused_before_hashing(
    sentence: str, value: object, error: type[FormatError]
) -> None:
    """What could have two forms, or be obeyed by a reader, has none."""
    with pytest.raises(error):
        canonical(value)


def test_limits_themselves_are_allowed() -> None:
    """Exactly eight deep, exactly the greatest integer, exactly the longest leaf."""
    canonical([[[[[[[[1]]]]]]]])
    canonical([2**53 - 1, -(2**53 - 1), True, None])
    longest = "x" * (LEAF_BYTES_MAX - len('{"a":""}'))
    assert len(canonical({"a": longest})) == LEAF_BYTES_MAX


TEXTS = st.text(max_size=20).map(printable)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**53 - 1) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"\A[a-z0-9_]{1,8}\Z"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_one_canonical_form(value: object) -> None:
    """The same bytes as the canonical form of TUF metadata, and JSON reads them back."""
    try:
        found = canonical(value)
    except LimitError:
        return
    assert found == olpc.encode(value)
    assert json.loads(found) == value


@given(st.text(max_size=400), st.integers(1, 100))
def test_G06_foreign_text_is_made_harmless(text: str, limit: int) -> None:
    """Whatever a device or client sends fits into a leaf afterwards, bounded."""
    shown = printable(text, limit)
    canonical({"text": shown})
    assert len(shown) <= limit
    if text.isascii() and text.isprintable() and len(text) <= limit:
        assert shown == text
    assert unicodedata.is_normalized("NFC", shown)
