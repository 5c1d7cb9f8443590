"""Which bytes of a file a request wants (RFC 9110, section 14).

One range per request: several at once would let a small request ask for a large answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Part", "Unsatisfiable", "Whole", "wanted"]

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Whole:
    """All of it: status 200."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``[start, stop)``: status 206."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """No byte of the file is meant: status 416."""


def wanted(
    range_header: str | None, if_range: str | None, etag: str, length: int
) -> Whole | Part | Unsatisfiable:
    """What to answer for a file of ``length`` bytes with that strong ``etag``.

    A range that is malformed, in other units or multiple is ignored, as section 14.2
    demands; so is any range whose ``If-Range`` names another state of the file.
    """
    match = _RANGE.match(range_header) if range_header else None
    if match is None or (if_range is not None and if_range != etag):
        return Whole()
    first, last, suffix = match.groups()
    if suffix is not None:
        count = min(int(suffix), length)
        return Part(length - count, length) if count else Unsatisfiable()
    start = int(first)
    if last is not None and int(last) < start:
        return Whole()
    if start >= length:
        return Unsatisfiable()
    return Part(start, min(int(last) + 1, length) if last is not None else length)
