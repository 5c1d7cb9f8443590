"""The catalogue of attacks: every row, the catalogue itself, and that rows can fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.cli import attack as command
from sealift.cli.main import main
from sealift.core.errors import NotFoundError
from sealift.sim.attacks.catalogue import CATALOGUE, Row, row
from sealift.sim.attacks.fence import fenced
from sealift.sim.attacks.run import attacks, chosen, run_row
from sealift.sim.attacks.simulated import Parts
from sealift.sim.attacks.world import Ground, Observed

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
        f"{part}-{n:02}" for part, size in SIZES.items() for n in range(1, size + 1)
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
    """What is not run yet is written down for users, row by row."""
    page = Path(__file__).parents[2].joinpath("docs", "attacks.md").read_text("utf-8")
    missing = {it.id for it in CATALOGUE if it.later and not _named(it.id, page)}
    assert not missing


def _named(attack_id: str, page: str) -> bool:
    part, number = attack_id.split("-")
    spans = re.findall(rf"{part}-(\d\d)(?: to {part}-(\d\d))?", page)
    return any(int(a) <= int(number) <= int(b or a) for a, b in spans)
