"""SQL statements of the tables about operators: their tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.server import ports
from sealift.server.adapters.rows import Row, Table, maybe, moment, packed, text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Tokens"]

_TOKEN = """SELECT name, sha256, roles, created_by, created_at, expires_at, revoked_at
    FROM api_token"""
_SAVE = """INSERT INTO api_token (name, sha256, roles, created_by, created_at,
        expires_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, roles = excluded.roles,
        created_by = excluded.created_by, created_at = excluded.created_at,
        expires_at = excluded.expires_at, revoked_at = excluded.revoked_at"""


class Tokens(Table):
    """Credentials of the operator API."""

    def shown(self, sha256: str) -> ports.Token | None:
        """The token with that digest."""
        return self._maybe(self.one(f"{_TOKEN} WHERE sha256 = ?", sha256))

    def find(self, name: str) -> ports.Token | None:
        """One token."""
        return self._maybe(self.one(f"{_TOKEN} WHERE name = ?", name))

    def all(self) -> Sequence[ports.Token]:
        """Every token there ever was, the newest first."""
        rows = self.rows(f"{_TOKEN} ORDER BY created_at DESC, name")
        return [_token(row) for row in rows]

    def save(self, token: ports.Token) -> None:
        """Insert or replace."""
        self.rows(
            _SAVE,
            token.name,
            token.sha256,
            packed(list(token.roles)),
            token.created_by,
            text(token.created_at),
            text(token.expires_at),
            text(token.revoked_at),
        )

    @staticmethod
    def _maybe(row: Row | None) -> ports.Token | None:
        return None if row is None else _token(row)


def _token(row: Row) -> ports.Token:
    return ports.Token(
        name=row[0],
        sha256=row[1],
        roles=tuple(json.loads(row[2])),
        created_by=row[3],
        created_at=moment(row[4]),
        expires_at=maybe(row[5]),
        revoked_at=maybe(row[6]),
    )
