"""The catalogue of attacks: every row, and the catalogue itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sealift.cli.main import main
from sealift.core.errors import NotFoundError
from sealift.sim.attacks.catalogue import CATALOGUE, Row, row
from sealift.sim.attacks.run import attacks, chosen, run_row

RUNNING = [found for found in CATALOGUE if not found.later]
SIZES = {"A": 34, "B": 16, "C": 16, "D": 17, "E": 14, "F": 16, "G": 7}
"""Rows per section of the threat model."""


@pytest.mark.parametrize("found", RUNNING, ids=lambda found: found.id)
def test_row(found: Row) -> None:
    """The attack comes to exactly what the catalogue requires, and to nothing else."""
    result = run_row(found, attacks()[found.id])
    assert result.observed == found.required


# ── the catalogue ────────────────────────────────────────────────────────────────────
def test_no_row_of_the_threat_model_is_forgotten() -> None:
    """The ids are those of the threat model's sections, none missing, none twice."""
    wanted = [
        f"{part}-{number:02}"
        for part, size in SIZES.items()
        for number in range(1, size + 1)
    ]
    assert [found.id for found in CATALOGUE] == wanted


def test_every_row_is_run_or_says_why_not() -> None:
    """A row has a function and a required outcome, or a reason; never both or neither."""
    known = attacks()
    for found in CATALOGUE:
        assert bool(found.later) == (found.id not in known), found.id
        assert bool(found.required) != bool(found.later), found.id


def test_no_function_without_a_row() -> None:
    """Each attack function names a row of the catalogue."""
    assert all(row(name) for name in attacks())


def test_the_document_names_every_row_that_comes_later() -> None:
    """What is not run yet is written down for users, row by row, and nothing else is."""
    page = Path(__file__).parents[2].joinpath("docs", "attacks.md").read_text("utf-8")
    table = page.partition("## Rows that come later")[2].partition("\n## ")[0]
    for found in CATALOGUE:
        assert bool(found.later) == _named(found.id, table), found.id


def _named(attack_id: str, page: str) -> bool:
    part, number = attack_id.split("-")
    spans = re.findall(rf"{part}-(\d\d)(?: to {part}-(\d\d))?", page)
    return any(int(a) <= int(number) <= int(b or a) for a, b in spans)


def test_rows_are_chosen_by_id() -> None:
    """Ids are taken as people write them, each once; without any, all rows are meant."""
    assert [found.id for found in chosen(["b-05", " A-04", "A-04"])] == ["A-04", "B-05"]
    assert chosen([]) == list(CATALOGUE)
    with pytest.raises(NotFoundError):
        chosen(["A-99"])


# ── the command ──────────────────────────────────────────────────────────────────────
def test_the_command_prints_what_was_required_and_observed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``--json`` is one list, and exit status 0 means that every row that ran holds."""
    status = main(["attack", "--id", "A-12", "--id", "A-33", "--json"])
    found = {entry["id"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert status == 0
    assert found["A-12"]["required"] == found["A-12"]["observed"]
    assert found["A-12"]["ok"] is True
    assert found["A-33"]["ok"] is None
    assert found["A-33"]["later"]


def test_the_command_shows_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """For people there are tables and a sum at the end."""
    assert main(["attack", "--id", "A-12", "--id", "A-33"]) == 0
    shown = capsys.readouterr()
    assert "metadata.misdirected" in shown.out
    assert "1 of 1 rows hold, 1 come later" in shown.err


def test_the_list_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """``--list`` has every row of the catalogue."""
    assert main(["attack", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in listed] == [found.id for found in CATALOGUE]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--all", "--list"], "config.invalid"),
        (["--id", "A-99"], "input.not_found"),
        (["--id", "../x"], "input.not_found"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message with a code, an exit status other than 0, no traceback."""
    assert main(["attack", *arguments]) != 0
    assert f"[{code}]" in capsys.readouterr().err
