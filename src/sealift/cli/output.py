"""What every group prints with: JSON or text, tables, progress, questions.

The rules every command keeps:

* ``--json`` prints exactly one JSON value on standard output, and nothing else there.
* Without it, results go to standard output; progress, notes and warnings to standard
  error, plain when that is not a terminal.
* Texts that came from outside (names, versions, device ids) are printed as data:
  control characters are shown as escapes and no markup in them is obeyed.

A command takes ``as_json: Json = False`` and ends with :func:`show`. Errors are raised
(``core.errors``) and printed by ``main``; no command calls ``exit``.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from sealift.core.errors import (
    ClockError,
    InvalidConfigError,
    PassphraseError,
    RefusedError,
    SealiftError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Report = Callable[[str, int, int], None]

__all__ = [
    "DryRun",
    "Json",
    "PassphraseFile",
    "Yes",
    "clean",
    "confirm",
    "facts",
    "group",
    "is_interactive",
    "note",
    "now",
    "print_error",
    "print_json",
    "progress",
    "read_secret",
    "show",
    "size",
    "table",
    "warn",
]

SECRET_BYTES_MAX = 4096
"""Bytes of a passphrase or token file read at most."""

MADE = datetime(2026, 11, 1, tzinfo=UTC)
"""This program did not exist before."""
SANE = timedelta(days=20 * 365)
"""Nor is it trusted with a clock so far ahead (``uptane.md`` 1.4)."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, go ahead.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check and show everything, write nothing.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Read the passphrase from this file (first line) instead of asking.",
    ),
]


def group(text: str) -> typer.Typer:
    """A group of commands as every module of ``cli`` makes it; ``text`` is its help."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def now() -> datetime:
    """The clock of this program, the only one below ``main``; all else is handed it.

    Raises:
        ClockError: it cannot be right. What is signed by it would expire at once, or
            hold for decades.
    """
    found = datetime.now(UTC)  # noqa: TID251
    if not MADE <= found <= MADE + SANE:
        raise ClockError(
            f"this machine's clock says {found:%Y-%m-%d}, which cannot be right",
            hint="set the clock; a machine without a network has nobody else to ask",
        )
    return found


# ── results ──────────────────────────────────────────────────────────────────────────
def show(value: object, *, as_json: bool, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or let ``text`` print it for a human."""
    if as_json:
        print_json(value)
    else:
        text()


def print_json(value: object) -> None:
    """One JSON value, indented, on standard output; members keep their order."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; without a terminal, columns aligned by spaces and no frame."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if _is_terminal(sys.stdout):
        _rich_table(columns, cells)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def facts(pairs: Mapping[str, object]) -> None:
    """Names and values, one per line, the values in one column."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        print(f"{name.ljust(width)}  {clean(value)}")


def note(text: str) -> None:
    """A line for the human beside the result, on standard error."""
    print(clean(text), file=sys.stderr)


def warn(text: str) -> None:
    """A line that should not be overlooked, on standard error."""
    print(f"warning: {clean(text)}", file=sys.stderr)


def size(count: int) -> str:
    """Bytes for a human: ``1.5 MiB``."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def clean(value: object) -> str:
    r"""``value`` as one line of text; what a terminal might obey becomes ``\xNN``."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c.isprintable() else _escaped(c) for c in str(value))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        found.add_row(*(Text(cell) for cell in row))
    Console().print(found)


# ── errors ───────────────────────────────────────────────────────────────────────────
def print_error(error: SealiftError, *, as_json: bool) -> None:
    """The one form of every error: message, code, hint."""
    if as_json:
        print_json({"error": error.to_json()})
        return
    print(f"error: {clean(error.message)} [{error.code}]", file=sys.stderr)
    if error.hint:
        print(f"hint: {clean(error.hint)}", file=sys.stderr)


# ── progress ─────────────────────────────────────────────────────────────────────────
@contextmanager
def progress(*, as_json: bool = False, unit: str = "B") -> Iterator[Report]:
    """Show how far long steps are: ``report(step, done, total)``.

    One bar per step on a terminal, one line per finished step elsewhere, nothing with
    ``--json``. ``unit`` ``"B"`` counts bytes, any other text things of that name.
    """
    if as_json:
        yield lambda *_: None
    elif _is_terminal(sys.stderr):
        with _rich_progress(unit) as report:
            yield report
    else:
        yield _plain_progress(unit)


def _plain_progress(unit: str) -> Report:
    finished: set[str] = set()

    def report(step: str, done: int, total: int) -> None:
        if done >= total and step not in finished:
            finished.add(step)
            amount = size(total) if unit == "B" else f"{total} {unit}"
            note(f"{step}: {amount}")

    return report


@contextmanager
def _rich_progress(unit: str) -> Iterator[Report]:
    from rich import progress as bars
    from rich.console import Console

    amount: list[bars.ProgressColumn] = (
        [bars.DownloadColumn(binary_units=True), bars.TransferSpeedColumn()]
        if unit == "B"
        else [bars.MofNCompleteColumn(), bars.TextColumn(unit)]
    )
    label = bars.TextColumn("{task.description}", markup=False)
    tasks: dict[str, bars.TaskID] = {}
    with bars.Progress(
        label,
        bars.BarColumn(),
        *amount,
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as shown:

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = shown.add_task(clean(step), total=total)
            shown.update(tasks[step], completed=done, total=total)

        yield report


# ── questions ────────────────────────────────────────────────────────────────────────
def confirm(question: str, *, yes: bool) -> None:
    """Return if the human agrees, or ``yes`` said so before.

    Raises:
        InvalidConfigError: nobody is there to ask. RefusedError: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidConfigError(
            "this needs an answer and there is no terminal to ask on",
            hint="add --yes when you are sure",
        )
    if not typer.confirm(clean(question), err=True):
        raise RefusedError("the answer was no; nothing was done")


def is_interactive() -> bool:
    """Whether a human sits at both ends: asks and can answer."""
    return sys.stdin.isatty() and _is_terminal(sys.stdout)


def read_secret(prompt: str, file: Path | None, *, twice: bool = False) -> str:
    """A passphrase or PIN: the first line of ``file``, else asked without echo.

    Raises:
        PassphraseError: the file cannot be read or is empty, there is no terminal to
            ask on, or the two answers differ.
    """
    if file is not None:
        return _first_line(file)
    if not sys.stdin.isatty():
        raise PassphraseError(
            f"no terminal to ask for the {prompt}",
            hint="give --passphrase-file FILE, a file only you can read",
        )
    answer = typer.prompt(prompt, hide_input=True, err=True)
    if twice and answer != typer.prompt(f"{prompt} again", hide_input=True, err=True):
        raise PassphraseError("the two answers differ", hint="type it again")
    return str(answer)


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(SECRET_BYTES_MAX + 1)
        lines = raw.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PassphraseError(
            f"{file} cannot be read as a text: {_reason(error)}",
            hint="it must hold the secret on its first line, in UTF-8",
        ) from error
    if len(raw) > SECRET_BYTES_MAX or not lines or not lines[0]:
        raise PassphraseError(
            f"{file} does not hold a secret on its first line",
            hint=f"one non-empty line, at most {SECRET_BYTES_MAX} bytes",
        )
    return lines[0]


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is not UTF-8"


def _is_terminal(stream: TextIO | Any) -> bool:
    return bool(stream.isatty())
