"""Version order, and release counters against rollback.

The order is the one of the UAPI group's Version Format Specification 1.0 (UAPI.10): it
is for people, for sorting lists and for rules such as "from 1.2 on". What a device may
run is never decided by it but by the release counter, a plain number signed offline.
"""

from __future__ import annotations

import functools
from string import ascii_letters, digits
from typing import TypeVar

from sealift.core.errors import CounterError

__all__ = ["Version", "above", "compare", "counter_floor"]

_Sortable = TypeVar("_Sortable", bool, int, str)
_LETTERS = frozenset(ascii_letters)
_DIGITS = frozenset(digits)
_SPECIAL = _LETTERS | _DIGITS | frozenset("-.~^")


def compare(left: str, right: str) -> int:
    """Tell how two version texts sort: -1, 0 or 1.

    Total on any text, the empty one included; ``1_`` and ``1`` compare equal although
    they differ. Source: UAPI.10 1.0, "Version Comparison", clause by clause.
    """
    while True:
        # 1: whatever has no meaning of its own only separates; it is passed over.
        left, right = _skip(left), _skip(right)

        # 2: a tilde sorts below everything, below the end of the text too.
        if left[:1] == "~" or right[:1] == "~":
            if found := _sign(left[:1] != "~", right[:1] != "~"):
                return found
            left, right = left[1:], right[1:]

        # 3: whoever still has characters is higher; both at the end are equal.
        if not left or not right:
            return _sign(bool(left), bool(right))

        # 4, 5, 6: a minus, then a caret, then a dot sorts below what lacks it there.
        for mark in "-^.":
            if left[:1] == mark or right[:1] == mark:
                if found := _sign(left[:1] != mark, right[:1] != mark):
                    return found
                left, right = left[1:], right[1:]

        # 7: if one goes on with a digit, both number prefixes count; none counts as 0.
        if left[:1] in _DIGITS or right[:1] in _DIGITS:
            mine, left = _prefix(left, _DIGITS)
            theirs, right = _prefix(right, _DIGITS)
            if found := _numbers(mine, theirs):
                return found
            continue

        # 8: letters compare one by one, capitals below small, shorter below longer.
        mine, left = _prefix(left, _LETTERS)
        theirs, right = _prefix(right, _LETTERS)
        if found := _sign(mine, theirs):
            return found


@functools.total_ordering
class Version:
    """A version text that sorts by :func:`compare`; equal ones have one hash."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Version({self.text!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return compare(self.text, other.text) == 0

    def __lt__(self, other: Version) -> bool:
        return compare(self.text, other.text) < 0

    def __hash__(self) -> int:
        # Texts that compare equal may differ in separators and leading zeroes only.
        return hash("".join(c for c in self.text if c in _SPECIAL and c != "0"))


def above(counter: int, floor: int, *, name: str = "release") -> int:
    """Return ``counter`` if a device with ``floor`` may run it: equal or higher (W4).

    ``name`` says in the message what carries the counter.

    Raises:
        CounterError: it lies below the floor; installing it would be a downgrade.
    """
    if counter < floor:
        raise CounterError(
            f"{name} has release counter {counter}, this device accepts {floor} and up",
            hint="a downgrade needs a release with a higher counter",
            counter=counter,
            floor=floor,
        )
    return counter


def counter_floor(*floors: int | None) -> int:
    """Return the floor that several memories of it agree on: the highest known."""
    return max((floor for floor in floors if floor is not None), default=0)


def _skip(text: str) -> str:
    for at, character in enumerate(text):
        if character in _SPECIAL:
            return text[at:]
    return ""


def _prefix(text: str, kind: frozenset[str]) -> tuple[str, str]:
    for at, character in enumerate(text):
        if character not in kind:
            return text[:at], text[at:]
    return text, ""


def _numbers(left: str, right: str) -> int:
    # As texts: int() refuses more than 4300 digits, and a version may be hostile.
    left, right = left.lstrip("0"), right.lstrip("0")
    return _sign(len(left), len(right)) or _sign(left, right)


def _sign(left: _Sortable, right: _Sortable) -> int:
    return (left > right) - (left < right)
