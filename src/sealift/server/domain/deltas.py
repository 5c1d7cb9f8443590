"""Deltas of the fleet: their states, which may be made, and what a made one is worth.

``wanted → making → ready | useless | failed``, ``cancelled`` by an operator. A pair is
worked on once; its row stays, so that a delta that saved nothing is not made again.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

__all__ = [
    "ATTEMPTS",
    "DeltaState",
    "is_awaited",
    "name",
    "pause",
    "sealed_pair",
    "useful",
]

ATTEMPTS = 3
"""Times a delta is tried before it counts as failed."""
SUFFIX, SEALED = ".delta", ".sealed"
_SHARE = 80
"""Per cent of the full container from which on a delta is not worth having."""


class DeltaState(StrEnum):
    """Where a pair of images is."""

    WANTED = "wanted"
    MAKING = "making"
    READY = "ready"
    USELESS = "useless"
    FAILED = "failed"
    CANCELLED = "cancelled"


PENDING = frozenset({DeltaState.WANTED, DeltaState.MAKING})


def useful(length: int, full_length: int) -> bool:
    """Whether a delta saves enough to be offered: under 80 % of the full container."""
    return length * 100 < full_length * _SHARE


def sealed_pair(*, base_sealed: bool, new_sealed: bool, allowed: bool) -> bool | None:
    """Whether this server's delta of the pair is sealed; ``None``: it may not make it.

    The new image of a plain delta is public, so the differences would tell the base:
    there is none from a sealed base, whatever is ``allowed``.
    """
    if not base_sealed and not new_sealed:
        return False
    return True if new_sealed and allowed else None


def name(new_sha256: str, base_sha256: str, *, sealed: bool) -> str:
    """What the delta's container is called, wherever it was made."""
    return f"{new_sha256}-{base_sha256}{SUFFIX}{SEALED if sealed else ''}"


def pause(attempts: int) -> timedelta:
    """How long after that many attempts the next one waits: 1, 5, 25 minutes."""
    return timedelta(minutes=5 ** (attempts - 1))


def is_awaited(state: DeltaState, attempts: int) -> bool:
    """Whether a deployment waits for it: a first attempt, not the ones after a failure.

    ``attempts`` counts one that is under way.
    """
    return state in PENDING and attempts <= (1 if state is DeltaState.MAKING else 0)
