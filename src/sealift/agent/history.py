"""What this device tried and how it ended: the last entries, for people.

A bounded ring in one record. Nothing is decided by it, so a damaged one is begun anew.
Entries are made by :func:`attempt` and :func:`check`; texts in them may come from
strangers and are shortened here, escaped where they are shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.core import canonical
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from datetime import datetime

    from sealift.agent.ports import Readable
    from sealift.agent.shell import AttemptResult

RECORD = "history"
MOST_ENTRIES = 50
TEXT_CHARACTERS = 300
_LIMIT = 256 * 1024

Entry = dict[str, object]


def read(records: Readable) -> list[Entry]:
    """The entries, oldest first; none if there is no readable record.

    Raises:
        StateError, TrustAnchorError: the store itself cannot be read.
    """
    raw = records.read(RECORD)
    try:
        found = [] if raw is None else canonical.parse(raw, _LIMIT)
    except SealiftError:
        return []
    entries = found if isinstance(found, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def with_entry(entries: list[Entry], entry: Entry) -> bytes:
    """The record with one more entry.

    An attempt that is there already is not added again. A failed check that repeats the
    entry before it is counted there (``times``), so a server that lies for a week does
    not push the attempts out.
    """
    kept = list(entries)
    if kept and _repeats(kept[-1], entry):
        times = kept[-1].get("times", 1)
        kept[-1] = {**entry, "times": (times if type(times) is int else 1) + 1}
    elif entry.get("id") is None or entry["id"] not in {e.get("id") for e in kept}:
        kept.append(entry)
    return json.dumps(kept[-MOST_ENTRIES:], separators=(",", ":")).encode()


def attempt(result: AttemptResult, at: datetime) -> Entry:
    """The entry for an ended attempt to install."""
    image = result.order.artifact
    return {
        "kind": "install",
        "at": _time(at),
        "id": result.id,
        "component": _short(result.ecu_id),
        "release": _short(image.version),
        "counter": image.release_counter,
        "verdict": str(result.verdict),
        "stage": result.stage,
        "code": result.code,
        "detail": _short(result.detail),
    }


def check(error: SealiftError, at: datetime) -> Entry:
    """The entry for a check of the server that was refused."""
    return {
        "kind": "check",
        "at": _time(at),
        "verdict": "refused",
        "code": error.code,
        "attack": error.attack,
        "detail": _short(error.message),
    }


def _repeats(last: Entry, entry: Entry) -> bool:
    kind = "check"
    same = last.get("code") == entry.get("code")
    return last.get("kind") == kind == entry.get("kind") and same


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + "..."
