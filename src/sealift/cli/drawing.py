"""Pictures in text: the map of an image, and findings wrapped to the terminal's width.

Lines are made of spans, each a text with a style. Styles reach a terminal only; letters
alone must say it all.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Final

from sealift.cli.output import clean, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sealift.payload.look.anatomy import Map, Tone
    from sealift.payload.look.findings import Finding

    Span = tuple[str, str]
    Line = list[Span]

ROWS_MAX: Final = 16
WIDTH_MAX: Final = 100
LETTERS: Final = {"copied": "=", "changed": "~", "new": "#", "zero": "."}
_STYLES: Final = {
    "copied": "black on green",
    "changed": "black on yellow",
    "new": "black on red",
    "zero": "dim",
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold cyan",
}
_LABEL: Final = 11
_SAME: Final = [("*".rjust(_LABEL), "dim")]
"""Stands for rows like the one above, as in a dump of bytes."""


def width() -> int:
    """Columns to write in: the terminal's, 80 without one, never very many."""
    return min(shutil.get_terminal_size((80, 24)).columns, WIDTH_MAX)


def show_lines(lines: Iterable[Line]) -> None:
    """Print lines; with their styles if standard output is a terminal."""
    if not sys.stdout.isatty():
        for line in lines:
            print("".join(text for text, _ in line).rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)


# ── the map ──────────────────────────────────────────────────────────────────────────
def draw_map(picture: Map, columns: int) -> list[Line]:
    """The image from left to right and top to bottom, one letter per cell."""
    across = max(16, min(64, columns - _LABEL - 1) // 16 * 16)
    group = 1
    while -(-len(picture.cells) // group) > across * ROWS_MAX:
        group *= 2
    cells = picture.tones(group)
    cell = picture.cell * group
    rows = [cells[at : at + across] for at in range(0, len(cells), across)]
    lines = [[(f"map: 1 letter = {size(cell)}", "")]]
    for number, row in enumerate(rows):
        if number and row == rows[number - 1]:
            if lines[-1] != _SAME:
                lines.append(_SAME)
            continue
        label = size(number * across * cell).rjust(_LABEL)
        lines.append([(f"{label} ", "dim"), *_cells(row)])
    return [*lines, _legend(picture)]


def letters(picture: Map) -> str:
    """The finest map there is, as letters."""
    return "".join(LETTERS[tone] for tone in picture.tones())


def _cells(row: Sequence[Tone]) -> list[Span]:
    return [
        (LETTERS[tone] * sum(1 for _ in run), _STYLES[tone])
        for tone, run in groupby(row)
    ]


def _legend(picture: Map) -> Line:
    from sealift.payload.look.anatomy import Tone

    line: Line = [(" " * (_LABEL + 1), "")]
    for name, letter in LETTERS.items():
        amount = size(picture.total(Tone(name)))
        line += [(letter, _STYLES[name]), (f" {name} {amount}   ", "")]
    return line


# ── findings ─────────────────────────────────────────────────────────────────────────
def draw_finding(finding: Finding, columns: int) -> list[Line]:
    """A heading, then cause, cost, cure and places, wrapped."""
    heading: Line = [
        (f"{finding.severity}: ", _STYLES[finding.severity]),
        (clean(finding.code), "bold"),
    ]
    rows = [("cause", finding.cause), ("cost", finding.cost), ("cure", finding.cure)]
    rows += [("where" if n == 0 else "", text) for n, text in enumerate(finding.where)]
    return [heading, *(line for row in rows for line in _wrapped(*row, columns))]


def _wrapped(name: str, text: str, columns: int) -> Iterable[Line]:
    pieces = textwrap.wrap(
        clean(text),
        max(30, columns - 9),
        break_on_hyphens=False,
        break_long_words=False,
    )
    for number, piece in enumerate(pieces):
        yield [(f"  {(name if number == 0 else '').ljust(6)} ", "dim"), (piece, "")]
