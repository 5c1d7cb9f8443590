"""What all SQL of the server shares: a connection, a table, values as they are stored.

Times are stored as ``YYYY-MM-DDTHH:MM:SSZ``, structured values as JSON.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Connection", "Row", "Table", "maybe", "moment", "packed", "text"]

Row = tuple[Any, ...]
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Connection(Protocol):
    """What a database offers; placeholders are ``?``, foreign errors are translated."""

    def rows(self, sql: str, *values: object) -> Sequence[Row]:
        """Run a statement and fetch everything."""
        ...

    def changes(self) -> int:
        """Rows changed through this connection since the transaction began."""
        ...


class Table:
    """Some statements over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.rows = connection.rows

    def one(self, sql: str, *values: object) -> Row | None:
        """The first row, if there is one."""
        found = self.rows(sql, *values)
        return found[0] if found else None


def packed(value: object) -> str:
    """A structured value as JSON, always the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def text(at: datetime | None) -> str | None:
    """A moment as it is stored; sorts as the moments do."""
    return None if at is None else at.strftime(_TIME)


def moment(stored: str) -> datetime:
    """A stored moment."""
    return datetime.strptime(stored, _TIME).replace(tzinfo=UTC)


def maybe(stored: str | None) -> datetime | None:
    """A stored moment, if there is one."""
    return None if stored is None else moment(stored)
