"""Typed access to the members of parsed JSON: the right type in the right range, or no.

Numbers and texts outside their range are :class:`LimitError`, wrong types are
:class:`MalformedError`. ``True`` is no number here, whatever Python thinks.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from sealift.core.canonical import MAX_INTEGER
from sealift.core.errors import LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T", list[Any], "Mapping[str, Any]")

_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)
_LOWER_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def as_object(value: object, what: str) -> Mapping[str, object]:
    """``value`` as an object, else :class:`MalformedError`."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is not an object", member=what)
    return value


def member(found: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A member that must be there and be an object."""
    return as_object(found.get(name), name)


def items(found: Mapping[str, object], name: str, limit: int) -> list[object]:
    """A member that must be a list of at most ``limit`` values."""
    value = found.get(name)
    if not isinstance(value, list):
        raise MalformedError(f"{name} is not a list", member=name)
    return at_most(value, limit, name)


def at_most(value: T, limit: int, what: str) -> T:
    """``value`` unless it has more than ``limit`` entries."""
    if len(value) > limit:
        raise LimitError(f"{what}: {len(value)} entries, {limit} allowed", member=what)
    return value


def text(found: Mapping[str, object], name: str, limit: int) -> str:
    """A member that must be a text of 1 to ``limit`` characters, none of control."""
    return as_text(found.get(name), name, limit)


def as_text(value: object, what: str, limit: int, *, least: int = 1) -> str:
    """``value`` as a text of so many characters, none of them of control."""
    if not isinstance(value, str) or len(value) < least:
        raise MalformedError(f"{what} is not a text", member=what)
    if len(value) > limit:
        raise LimitError(f"{what} is longer than {limit} characters", member=what)
    if _CONTROL.search(value):
        raise MalformedError(f"{what} holds a control character", member=what)
    return value


def texts(
    found: Mapping[str, object], name: str, limit: int, length: int
) -> tuple[str, ...]:
    """A member that must be a list of distinct texts."""
    values = tuple(as_text(v, name, length) for v in items(found, name, limit))
    if len(set(values)) != len(values):
        raise MalformedError(f"{name} holds an entry twice", member=name)
    return values


def count(
    found: Mapping[str, object], name: str, low: int = 0, high: int = MAX_INTEGER
) -> int:
    """A member that must be an integer from ``low`` to ``high``."""
    value = found.get(name)
    if type(value) is not int:  # a bool is an int, and no number
        raise MalformedError(f"{name} is not an integer", member=name)
    if not low <= value <= high:
        raise LimitError(f"{name} is not in {low}…{high}", member=name)
    return value


def flag(found: Mapping[str, object], name: str) -> bool:
    """A member that must be ``true`` or ``false``."""
    value = found.get(name)
    if not isinstance(value, bool):
        raise MalformedError(f"{name} is neither true nor false", member=name)
    return value


def digest(found: Mapping[str, object], name: str, size: int) -> bytes:
    """A member that must be ``size`` bytes in lower-case hex."""
    value = found.get(name)
    if (
        not isinstance(value, str)
        or len(value) != 2 * size
        or not _LOWER_HEX.fullmatch(value)
    ):
        raise MalformedError(f"{name} is not {size} bytes in lower hex", member=name)
    return bytes.fromhex(value)


def base64(found: Mapping[str, object], name: str, limit: int) -> bytes:
    """A member that must be 1 to ``limit`` bytes in base64, in its one form."""
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedError(f"{name} is not a text", member=name)
    if len(value) > (limit + 2) // 3 * 4:
        raise LimitError(f"{name} is longer than {limit} bytes", member=name)
    try:
        raw = a2b_base64(value.encode("ascii"), strict_mode=True)
    except ValueError:
        raise MalformedError(f"{name} is not base64", member=name) from None
    if b2a_base64(raw, newline=False).decode("ascii") != value:
        raise MalformedError(f"{name} is not base64 in its one form", member=name)
    return raw


def moment(found: Mapping[str, object], name: str) -> datetime:
    """A member that must be a time, exactly ``YYYY-MM-DDTHH:MM:SSZ``."""
    value = found.get(name)
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise MalformedError(f"{name} is not YYYY-MM-DDTHH:MM:SSZ", member=name)
    try:
        return datetime(*map(int, match.groups()), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        raise MalformedError(f"{name} is not a time", member=name) from None


def written(moment_: datetime) -> str:
    """A UTC time as :func:`moment` reads it; parts of a second are dropped."""
    return moment_.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
