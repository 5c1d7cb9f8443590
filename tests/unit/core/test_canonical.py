"""Strict JSON in, canonical JSON out."""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from sealift.core.canonical import MAX_INTEGER, encode, parse, parse_object
from sealift.core.errors import FormatError, LimitError, MalformedError, SealiftError

CAP = 1 << 20
ROOT_CAP = 262_144


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"b": [1, true, null, "x"], "a": {}}', {"b": [1, True, None, "x"], "a": {}}),
        (" [ ] ", []),
        ("9007199254740991", MAX_INTEGER),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\u00e9\n\"\\"', 'é\n"\\'),
        ('"[[[["', "[[[["),
    ],
)
def test_what_is_strict_json_is_read(text: str, value: object) -> None:
    assert parse(text.encode(), CAP) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"[" + b"[]," * 33 + b"]]",
        b"{",
        b"nul",
        b"1 2",
        b"[1,]",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":1 /* */}',
        b'"\x01"',
        b'"a\\',
        b'"\\x41"',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'["\\uDFFF"]',
        b'{"\\ud800": 1}',
        b'[{"a": "\\ud800x"}]',
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1.0",
        b"1e3",
        b"1E3",
        b"-1.5",
        b"01",
        b"+1",
        b"0x10",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        '{"é":1,"e\u0301":2}'.encode(),
    ],
)
def test_what_is_not_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(raw, CAP)


@pytest.mark.parametrize(
    "text", ["9007199254740992", "-1", "-0", "9" * 5000, "[1, 99999999999999999999]"]
)
def test_an_integer_outside_0_to_2_to_53_is_over_a_limit(text: str) -> None:
    with pytest.raises(LimitError):
        parse(text.encode(), CAP)


@pytest.mark.parametrize(("size", "ok"), [(9, True), (10, True), (11, False)])
def test_size_is_capped_before_anything_is_read(size: int, ok: bool) -> None:
    raw = b'"' + b"x" * (size - 2) + b'"'
    if ok:
        assert parse(raw, 10)
    else:
        with pytest.raises(LimitError):
            parse(raw, 10)


@pytest.mark.parametrize(("depth", "ok"), [(31, True), (32, True), (33, False)])
@pytest.mark.parametrize(("first", "last"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_capped(depth: int, ok: bool, first: str, last: str) -> None:
    raw = (first * depth + "1" + last * depth).encode()
    if ok:
        assert parse(raw, CAP)
    else:
        with pytest.raises(LimitError):
            parse(raw, CAP)


def test_nesting_is_not_counted_in_strings_nor_over_siblings() -> None:
    many = [{'[[{{\\"[': ["]"]}] * 100
    assert parse(json.dumps(many).encode(), CAP) == many


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * ROOT_CAP,
        b'{"a":' * (ROOT_CAP // 5),
        b'"' + b'\\"' * (ROOT_CAP // 2 - 1),
        b'"' * ROOT_CAP,
        b"[]" * 40 + b'"' * (ROOT_CAP - 80),
        b"9" * ROOT_CAP,
        b"-" * ROOT_CAP,
        b"1" + b"0" * (ROOT_CAP - 3) + b".5",
        b"\\" * ROOT_CAP,
        b"[" * 20 + b'"' + b"x" * (ROOT_CAP - 21),
        b"]" * ROOT_CAP,
        b"[" + b"[]," * (ROOT_CAP // 3 - 1),
        b"[" + b"{}" * (ROOT_CAP // 2 - 1),
        b"[" + b"1," * (ROOT_CAP // 2 - 1),
    ],
    ids=range(14),
)
def test_A22_a_flood_is_refused_in_bounded_time_and_memory(raw: bytes) -> None:
    """What nobody vouched for is at most a Root: 100 ms and 10 MiB. Longer files are
    parsed only after a signed parent listed their hash.
    """
    spent = []
    gc.freeze()  # an agent has no test suite's objects for its collector to walk
    for _ in range(3):  # the best of three: others may be busy on this machine
        start = time.process_time()
        with pytest.raises(FormatError):
            parse(raw, ROOT_CAP)
        spent.append(time.process_time() - start)
    gc.unfreeze()
    traced = sys.gettrace() is not None  # coverage makes all of it far slower
    assert min(spent) < (2.0 if traced else 0.1)
    tracemalloc.start()
    with pytest.raises(FormatError):
        parse(raw, ROOT_CAP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize(("depth", "ok"), [(32, True), (33, False)])
def test_nesting_is_capped_among_many_siblings(depth: int, ok: bool) -> None:
    raw = b"[" + b"[]," * 40 + b"[" * (depth - 1) + b"]" * depth
    if ok:
        assert parse(raw, CAP)
    else:
        with pytest.raises(LimitError):
            parse(raw, CAP)


def test_an_object_is_an_object() -> None:
    assert parse_object(b"{}", CAP) == {}
    for raw in (b"[]", b"1", b"null"):
        with pytest.raises(MalformedError):
            parse_object(raw, CAP)


# ── our own texts (C1, A-23) ─────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "raw",
    [
        '{"a": "e\u0301"}'.encode(),
        '["e\u0301"]'.encode(),
        b'["e\\u0301"]',
        '{"e\u0301": 1}'.encode(),
        b'{"name": 1, "Name": 2}',
        '{"straße": 1, "STRASSE": 2}'.encode(),
    ],
)
def test_C1_our_texts_are_in_nfc_and_have_no_twins_in_case(raw: bytes) -> None:
    assert parse(raw, CAP)
    with pytest.raises(MalformedError):
        parse(raw, CAP, own=True)


def test_C1_our_texts_may_be_in_any_language() -> None:
    for text in ("é", "ß", "日本", "\U0001f600"):
        assert parse(json.dumps([text]).encode(), CAP, own=True) == [text]


# ── canonical JSON ───────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"b": 1, "a": [True, False, None]}, b'{"a":[true,false,null],"b":1}'),
        ("", b'""'),
        ('"\\', b'"\\"\\\\"'),
        ("\n\t\x00\x7f/", b'"\n\t\x00\x7f/"'),
        ("é\U0001f600", '"é\U0001f600"'.encode()),
        ({"\uffff": 1, "\U00010000": 2}, '{"\uffff":1,"\U00010000":2}'.encode()),
        ({}, b"{}"),
        ((), b"[]"),
        (-5, b"-5"),
    ],
)
def test_canonical_json_is_olpcs(value: object, encoded: bytes) -> None:
    assert encode(value) == encoded


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), b"x", {1: 2}, {"a": 1.5}, [object()], "\ud800"]
)
def test_what_canonical_json_lacks_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        encode(value)


text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, MAX_INTEGER) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=20,
)


@given(values)
def test_canonical_json_is_the_same_as_securesystemslibs(value: Any) -> None:
    assert encode(value) == (encode_canonical(value) or "").encode()


@given(values)
def test_what_json_wrote_is_read_or_has_twins(value: Any) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(value, ensure_ascii=ascii_only).encode()
        try:
            assert parse(raw, CAP) == value
        except MalformedError:
            assert has_twins(value)
        except LimitError:
            assert raw.count(b"[") + raw.count(b"{") > 32


def has_twins(value: Any) -> bool:
    if isinstance(value, dict):
        names = {unicodedata.normalize("NFC", name) for name in value}
        return len(names) < len(value) or any(map(has_twins, value.values()))
    return isinstance(value, list) and any(map(has_twins, value))


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]",:\\u0d8ef19.-eE \nNatrul').map(str.encode)
)
def test_any_bytes_are_read_or_refused_and_agree_with_json(raw: bytes) -> None:
    for own in (False, True):
        try:
            value = parse(raw, CAP, own=own)
        except SealiftError:
            continue
        assert json.loads(raw.decode()) == value
        assert parse(encode(value), CAP) == value or b"\n" in raw or not raw.isascii()
