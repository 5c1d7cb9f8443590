"""One TUF repository within one check: bring what ``core.trust`` wants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from sealift.core.delegation import Found, find
from sealift.core.metadata import TOP_LEVEL, encoded
from sealift.core.trust import accept, wanted
from sealift.core.trusted import Complete, Name, Trusted, Want

Fetch = Callable[[str, Want, bytes | None], bytes | None]
"""Repository, what is wanted, what is known already → bytes, ``None`` if absent."""


class Repository:
    """One repository within one check: how far it is, and what is to be kept of it."""

    def __init__(self, name: str, state: Trusted, fetch: Fetch) -> None:
        self.name = name
        self.state = state
        self.changes: dict[Name, bytes | None] = {}
        self._fetch = fetch

    def final_root(self, now: datetime) -> None:
        """Bring the Roots, and nothing else."""
        while isinstance(want := wanted(self.state), Want) and want.role == "root":
            self._bring(want, now)

    def complete(self, now: datetime) -> Complete:
        """Bring what is missing until the repository is complete."""
        while isinstance(want := wanted(self.state), Want):
            self._bring(want, now)
        return want

    def search(self, path: str, hardware_id: str, now: datetime) -> Found:
        """Who vouches for an image, bringing delegated roles on the way."""
        while isinstance(want := find(self.state, path, hardware_id), Want):
            self._bring(want, now)
        return want

    def _bring(self, want: Want, now: datetime) -> None:
        past = self.state.past_timestamp
        raw = want.kept
        if raw is None:
            raw = self._fetch(self.name, want, past.raw if past else None)
        self.state = accept(self.state, want, raw, now)
        self.changes |= self.state.changes


def path(name: str, want: Want) -> str:
    """Where a wanted file lies, relative to the server's base URL."""
    version = "" if want.version is None else f"{want.version}."
    return f"{name}/metadata/{version}{encoded(want.role)}.json"


def record(name: str, file: Name) -> str:
    """The name a file is kept under. A role's name may be anything: it is hashed."""
    if isinstance(file, int):
        return f"{name}.root.{file}.json"
    if file in TOP_LEVEL:
        return f"{name}.{file}.json"
    return f"{name}.role.{hashlib.sha256(file.encode()).hexdigest()}.json"
