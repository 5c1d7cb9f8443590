"""One line per event on stderr: ``LEVEL EVENT name=value …``, ASCII, no line breaks.

Values may be texts from strangers. A plain word stands as it is; anything else is a
JSON string in ASCII, so no value can begin a line, end one, or drive a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.core.errors import SealiftError

VALUE_CHARACTERS = 500
"""Longest value in a line; what is cut off ends in ``...``."""

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,-]+")

Value = str | int | float | bool | None


def line(level: str, event: str, **facts: Value) -> str:
    """The line without its end; facts that are ``None`` are left out."""
    known = [f"{n}={_shown(v)}" for n, v in facts.items() if v is not None]
    return " ".join([level, event, *known])


def _to_stderr(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode("ascii") + b"\n")


_take: Callable[[str], None] = _to_stderr


@contextlib.contextmanager
def diverted(take: Callable[[str], None]) -> Iterator[None]:
    """Hand lines to ``take`` within the block: for devices that are simulated."""
    global _take  # noqa: PLW0603 -- there is one stderr per process, and so one of these
    before, _take = _take, take
    try:
        yield
    finally:
        _take = before


def write(level: str, event: str, **facts: Value) -> None:
    """Write one line to stderr in one system call; a closed stderr stops nothing."""
    _take(line(level, event, **facts))


def info(event: str, **facts: Value) -> None:
    """Something happened as it should."""
    write("info", event, **facts)


def failed(event: str, error: SealiftError, **facts: Value) -> None:
    """Something was refused or did not work: code, message, hint, attack class."""
    write(
        "error",
        event,
        code=error.code,
        message=error.message,
        hint=error.hint,
        attack=error.attack,
        **facts,
    )


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if len(text) > VALUE_CHARACTERS:
        text = text[:VALUE_CHARACTERS] + "..."
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
