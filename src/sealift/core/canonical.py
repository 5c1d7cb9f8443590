r"""Strict JSON in, canonical JSON out.

What comes in is bounded before it is parsed: size, depth, range of integers. What the
standard parser forgives is refused: members twice, ``NaN``, floats, exponents, lone
surrogates, bytes that are not UTF-8. What goes out is OLPC canonical JSON, the form
TUF signs: members sorted by code point, no white space, only ``"`` and ``\`` escaped.
Values in between are plain ``dict``, ``list``, ``str``, ``int``, ``bool`` and ``None``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from sealift.core.errors import LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 32
"""Objects and arrays may be nested this deep."""

MAX_INTEGER = 2**53 - 1
"""Greatest integer every JSON reader agrees on (RFC 8259, section 6)."""

# A quote swallows its whole string, closed or not, so the scan stays linear.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_INTEGER_DIGITS = len(str(MAX_INTEGER))


def parse(raw: bytes, limit: int, *, own: bool = False) -> object:
    """Parse one JSON text of at most ``limit`` bytes.

    ``own`` adds the rules for texts Sealift itself writes: every string is in NFC, and
    no two member names of one object differ only in case (RFC 5198; Uptane C1). Names
    that are equal after NFC are refused always.

    Raises:
        LimitError: too long, nested deeper than 32, or an integer outside 0…2^53-1.
        MalformedError: anything else that is not strict JSON.
    """
    if len(raw) > limit:
        raise LimitError(f"{len(raw)} bytes of JSON, {limit} allowed", limit=limit)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}") from None
    _require_shallow(text)
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_own_members if own else _members,
            parse_int=_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except json.JSONDecodeError as error:
        raise MalformedError(f"not JSON: {error.msg} at {error.pos}") from None
    if _SURROGATE_ESCAPE.search(text) or (
        own and (not text.isascii() or "\\u" in text)
    ):
        _require_text(value, own=own)
    return value


def parse_object(raw: bytes, limit: int, *, own: bool = False) -> dict[str, object]:
    """Parse a JSON text that must be one object; see :func:`parse`.

    Raises:
        LimitError: as :func:`parse`.
        MalformedError: as :func:`parse`, or not an object.
    """
    value = parse(raw, limit, own=own)
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object")
    return value


def encode(value: object) -> bytes:
    """The OLPC canonical JSON of ``value``, in UTF-8.

    It is not JSON: control characters stand unescaped. Floats do not exist in it.

    Raises:
        MalformedError: a float, a lone surrogate, a member name that is not a text,
            or a type JSON does not have.
    """
    parts: list[str] = []
    _encode(value, parts)
    try:
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("a text holds a lone surrogate") from None


def _encode(value: object, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(_quoted(value))
    elif isinstance(value, bool):  # before int: a bool is one
        out.append("true" if value else "false")
    elif value is None:
        out.append("null")
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, (list, tuple)):
        _encode_items(value, out)
    elif isinstance(value, dict):
        _encode_members(value, out)
    else:
        raise MalformedError(f"canonical JSON has no {type(value).__name__}")


def _encode_items(items: list[object] | tuple[object, ...], out: list[str]) -> None:
    out.append("[")
    for index, item in enumerate(items):
        if index:
            out.append(",")
        _encode(item, out)
    out.append("]")


def _encode_members(members: dict[object, object], out: list[str]) -> None:
    names = [name for name in members if isinstance(name, str)]
    if len(names) != len(members):
        raise MalformedError("canonical JSON: a member name is not a text")
    out.append("{")
    for index, name in enumerate(sorted(names)):  # str sorts by code point
        if index:
            out.append(",")
        out.extend((_quoted(name), ":"))
        _encode(members[name], out)
    out.append("}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _require_shallow(text: str) -> None:
    """Count brackets outside strings, so that the parser cannot run out of stack."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise LimitError(f"JSON nested deeper than {MAX_DEPTH}")
        elif first != '"':
            depth -= 1
            if depth < 0:
                raise MalformedError("not JSON: a bracket closes nothing")


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("an object has a member twice")
    if not all(name.isascii() for name in found):
        _require_distinct(pairs, nfc)
    return found


def _own_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _require_distinct(pairs, lambda name: nfc(name).casefold())
    return dict(pairs)


def _require_distinct(
    pairs: list[tuple[str, object]], fold: Callable[[str], str]
) -> None:
    if len({fold(name) for name, _ in pairs}) != len(pairs):
        raise MalformedError("an object has two members of the same name")


def nfc(text: str) -> str:
    """``text`` in Unicode's normal form C (RFC 5198, section 3)."""
    if text.isascii():
        return text
    import unicodedata  # its tables weigh a megabyte that an idle device never needs

    return unicodedata.normalize("NFC", text)


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_DIGITS or digits.startswith("-"):
        raise LimitError(f"an integer is outside 0…{MAX_INTEGER}")
    value = int(digits)
    if value > MAX_INTEGER:
        raise LimitError(f"an integer is outside 0…{MAX_INTEGER}")
    return value


def _refuse_number(text: str) -> object:
    raise MalformedError(f"not an integer: {text[:32]}")


def _require_text(value: object, *, own: bool) -> None:
    """Refuse lone surrogates, and with ``own`` texts that are not in NFC."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedError("a text holds a lone surrogate") from None
        if own and nfc(value) != value:
            raise MalformedError("a text is not in NFC")
    elif isinstance(value, list):
        for item in value:
            _require_text(item, own=own)
    elif isinstance(value, dict):
        for name, item in value.items():
            _require_text(name, own=own)
            _require_text(item, own=own)
