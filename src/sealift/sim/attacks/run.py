"""Running rows: each on fresh ground, judged by nothing but comparison.

Attack functions are found by their names, ``attack_a_04`` for ``A-04``, in the modules
of :data:`MODULES`; adding a row is a function and the end of its ``later``.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sealift.core.errors import NotFoundError, SealiftError
from sealift.sim.attacks.catalogue import CATALOGUE, Row, row
from sealift.sim.attacks.outcome import code_of
from sealift.sim.attacks.simulated import SHIPPED, Parts
from sealift.sim.attacks.world import Ground, Observed

__all__ = ["MODULES", "Attack", "Result", "attacks", "chosen", "run", "run_row"]

MODULES = (
    "metadata",
    "freeze",
    "mixing",
    "parsing",
    "transfer",
    "delegation",
    "clocks",
    "keys",
    "signatures",
    "takeover",
    "provisioning",
    "ceremony",
    "containers",
    "deltas",
    "sealed",
    "payload",
    "device",
    "surroundings",
    "restored",
)
Attack = Callable[[Ground], Observed]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one row; ``ok`` is ``None`` if it cannot be run yet."""

    row: Row
    observed: str
    ok: bool | None
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """The result as ``sealift attack --json`` prints it."""
        found: dict[str, object] = {
            "id": self.row.id,
            "name": self.row.name,
            "required": self.row.required or None,
            "observed": self.observed or None,
            "ok": self.ok,
        }
        if self.row.later:
            found["later"] = self.row.later
        if self.row.partly:
            found["partly"] = self.row.partly
        return found


def attacks() -> dict[str, Attack]:
    """Every attack function there is, by the id of its row."""
    found: dict[str, Attack] = {}
    for name in MODULES:
        module = importlib.import_module(f"sealift.sim.attacks.{name}")
        for member, value in vars(module).items():
            if member.startswith("attack_"):
                found[member.removeprefix("attack_").replace("_", "-").upper()] = value
    return found


def chosen(ids: Iterable[str]) -> list[Row]:
    """The rows of these ids, in the order of the catalogue; all if there are none.

    Raises:
        NotFoundError: there is no such row.
    """
    wanted = [text.strip().upper() for text in ids]
    for text in wanted:
        if row(text) is None:
            raise NotFoundError(
                f"there is no attack {text!r}", hint="`sealift attack --list` has all"
            )
    return [it for it in CATALOGUE if not wanted or it.id in wanted]


def run(rows: Iterable[Row], parts: Parts = SHIPPED) -> Iterator[Result]:
    """Run rows one after the other; yields each result as it comes."""
    known = attacks()
    for found in rows:
        yield run_row(found, known.get(found.id), parts)


def run_row(found: Row, attack: Attack | None, parts: Parts = SHIPPED) -> Result:
    """Run one row in a temporary directory that is gone afterwards."""
    if found.later or attack is None:
        return Result(found, "", None)
    began = time.monotonic()
    observed = _observed(attack, parts)
    ok = observed == found.required
    return Result(found, observed, ok, time.monotonic() - began)


def _observed(attack: Attack, parts: Parts) -> str:
    with tempfile.TemporaryDirectory(prefix="sealift-attack-", dir=_memory()) as place:
        ground = Ground(Path(place).resolve(), parts)
        try:
            return str(attack(ground))
        except SealiftError as error:
            return f"{error.code} where none was expected: {error.message}"
        except Exception as error:  # noqa: BLE001 -- a crash is a finding, by its name
            return code_of(error)


def _memory() -> str | None:
    """Where files live in memory, if there is such a place.

    Thousands of ``fsync`` on a busy disk take minutes and prove nothing here: who dies
    in these rows are processes, not machines.
    """
    place = "/dev/shm"  # noqa: S108 -- a fresh directory of our own is made in it
    return place if os.access(place, os.W_OK | os.X_OK) else None
