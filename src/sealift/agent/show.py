"""What people see on a terminal: errors, facts, tables; strange texts escaped."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sealift.core.errors import SealiftError


def error(found: SealiftError, *, as_json: bool) -> None:
    """The one form of every error: message, code, hint."""
    if as_json:
        value({"error": found.to_json()})
        return
    _say(f"error: {clean(found.message)} [{found.code}]")
    if found.hint:
        _say(f"hint: {clean(found.hint)}")


def value(found: object) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line of progress, on standard error."""
    _say(clean(text))


def facts(found: Mapping[str, object], indent: str = "") -> None:
    """Names and values, nested ones indented; what is empty stays unsaid."""
    width = max((len(name) for name in found), default=0)
    for name, it in found.items():
        shown = name.replace("_", " ")
        if isinstance(it, dict):
            sys.stdout.write(f"{indent}{shown}\n")
            facts(it, indent + "  ")
        elif isinstance(it, list):
            _list(shown, it, indent)
        else:
            sys.stdout.write(f"{indent}{shown.ljust(width)}  {clean(it)}\n")
    sys.stdout.flush()


def _list(name: str, found: list[object], indent: str) -> None:
    for it in found:
        if isinstance(it, dict):
            sys.stdout.write(f"{indent}{name}\n")
            facts(it, indent + "  ")
        else:
            sys.stdout.write(f"{indent}{name}: {clean(it)}\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns aligned by spaces."""
    lines = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    sys.stdout.flush()


def clean(it: object) -> str:
    r"""One line of text; what a terminal might obey becomes ``\xNN``."""
    if it is None:
        return "-"
    if isinstance(it, bool):
        return "yes" if it else "no"
    return "".join(c if c.isprintable() else _escaped(c) for c in str(it))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
