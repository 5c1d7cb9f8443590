"""Whether a report continues what a device told before, repeats it, or forks it.

Each report carries a strictly rising counter and the hash of the report produced before
it (design page ``crypto-and-identity.md``, section 9). Two holders of one key cannot
keep that up for long: the second to speak extends a history that has gone on already.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KEPT", "Arrived", "Known", "Verdict", "judge"]

KEPT = 64
"""How many accepted reports of a device a new one is compared with."""


class Verdict(StrEnum):
    """What a report is."""

    ACCEPTED = "accepted"
    REPLAY = "replay"
    """Said before, or older than what was said: nothing changes (M7)."""
    FORK = "fork"
    """Two holders of one identity: quarantine (M8)."""
    UNCONNECTED = "unconnected"
    """It claims to continue something we never saw, and no report was given up."""


@dataclass(frozen=True, slots=True)
class Known:
    """What we accepted of a device: its highest counter, its last reports' hashes.

    Hashes are lower hex, the newest first.
    """

    counter: int
    hashes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A report with good signatures. ``previous`` is the hash of the one before it."""

    sha256: str
    counter: int
    previous: str | None
    gap: bool


def judge(known: Known, arrived: Arrived) -> Verdict:
    """Compare an arriving report with the history of its device."""
    if arrived.sha256 in known.hashes:
        return Verdict.REPLAY
    if not known.hashes:
        return Verdict.ACCEPTED
    continues = arrived.previous == known.hashes[0]
    if arrived.counter == known.counter:
        return Verdict.FORK
    if not continues and arrived.previous in known.hashes:
        return Verdict.FORK
    if arrived.counter < known.counter:
        return Verdict.REPLAY
    return Verdict.ACCEPTED if continues or arrived.gap else Verdict.UNCONNECTED
