"""Tables, JSON, progress and questions, for a terminal and for a file."""

from __future__ import annotations

import io
import json
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from sealift.cli import output
from sealift.core.errors import ClockError, InvalidConfigError, PassphraseError

# value → what a terminal may see
CLEAN = [
    ("plain", "plain"),
    ("é 漢", "é 漢"),
    ("a\nb", "a\\nb"),
    ("\x1b[31m", "\\x1b[31m"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    ("\ud800", "\\ud800"),
    (None, "-"),
    (True, "yes"),
    (0, "0"),
]


@pytest.mark.parametrize(("value", "shown"), CLEAN)
def test_texts_are_data(value: object, shown: str) -> None:
    """What a terminal might obey is shown as an escape."""
    assert output.clean(value) == shown


SIZES = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 19, "1.5 MiB"),
         (5 << 40, "5.0 TiB"), (2000 << 40, "2000.0 TiB")]  # fmt: skip


@pytest.mark.parametrize(("count", "text"), SIZES)
def test_sizes(count: int, text: str) -> None:
    """Bytes for humans, in powers of 1024."""
    assert output.size(count) == text


def test_a_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: columns, spaces, no frame, no trailing blanks."""
    output.table(["name", "n"], [["a", 1], ["longer", 22]])
    assert capsys.readouterr().out == "name    n\na       1\nlonger  22\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_on_a_terminal_obeys_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square brackets from outside stay square brackets."""
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    output.table(["name"], [["[red]x[/red]"]])
    assert "[red]x[/red]" in screen.getvalue()


def test_json_is_one_value_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Order kept, everything else escaped."""
    output.show({"b": "é", "a": 1}, as_json=True, text=lambda: None)
    text = capsys.readouterr().out
    assert text.isascii()
    assert list(json.loads(text)) == ["b", "a"]


def test_progress_without_a_terminal_tells_finished_steps_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line per step, on standard error."""
    with output.progress() as report:
        for done in (0, 512, 1024, 1024):
            report("packing", done, 1024)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "packing: 1.0 KiB\n")


def test_progress_is_silent_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints its one value and nothing else."""
    with output.progress(as_json=True) as report:
        report("packing", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps are two bars, in bytes or in things."""
    for unit in ("B", "keys"):
        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        with output.progress(unit=unit) as report:
            report("making", 1, 2)
            report("making", 2, 2)
            report("other", 2, 2)
        assert "making" in screen.getvalue()


# file → what is wrong
SECRETS = {"empty": b"", "an empty line": b"\nsecret", "not UTF-8": b"\xff",
           "too long": b"x" * 5000}  # fmt: skip


@pytest.mark.parametrize("what", SECRETS)
def test_secret_files_that_hold_none(what: str, tmp_path: Path) -> None:
    """A secret is the first line of a text, bounded."""
    path = tmp_path / "secret"
    path.write_bytes(SECRETS[what])
    with pytest.raises(PassphraseError):
        output.read_secret("passphrase", path)


def test_a_secret_is_the_first_line(tmp_path: Path) -> None:
    """Without its end, whatever follows."""
    path = tmp_path / "secret"
    path.write_bytes("geheimniß\r\nmore".encode())
    assert output.read_secret("passphrase", path) == "geheimniß"


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the option instead of hanging."""
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    with pytest.raises(PassphraseError) as caught:
        output.read_secret("passphrase", None)
    assert "--passphrase-file" in str(caught.value.hint)
    with pytest.raises(InvalidConfigError):
        output.confirm("Really?", yes=False)
    output.confirm("Really?", yes=True)


@pytest.mark.parametrize("year", [1970, 2100])
def test_a_clock_that_cannot_be_right_is_refused(
    year: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is signed by a dead battery's time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(year, 1, 1, tzinfo=tz)

    monkeypatch.setattr(output, "datetime", Clock)
    with pytest.raises(ClockError):
        output.now()
