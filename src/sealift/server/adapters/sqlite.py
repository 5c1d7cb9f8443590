"""The store on SQLite: one writer, write-ahead log, readers that cannot write.

A commit that returns is durable (``synchronous=full``); see the server design page,
section 4. Writing transactions take the write lock at their start: a lock asked for in
the middle of a transaction is refused at once by SQLite, whatever the busy timeout.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sealift.core.errors import SealiftError, SpaceError, StateError
from sealift.server.adapters.migrations import MIGRATIONS
from sealift.server.adapters.rows import Row
from sealift.server.adapters.sql import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["SqliteStore"]

_MEMORY = ":memory:"
_PRAGMAS = (
    "PRAGMA journal_mode = wal",
    "PRAGMA foreign_keys = on",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA trusted_schema = off",
)
_FULL = frozenset({sqlite3.SQLITE_FULL})


class SqliteStore:
    """The :class:`~sealift.server.ports.Store` of one process.

    Writes may come from any thread and queue for the one writer. ``path`` ``None``
    keeps everything in memory.

    Raises:
        StateError: the file cannot be opened or is of a newer Sealift.
    """

    def __init__(self, path: Path | None) -> None:
        place = _MEMORY if path is None else str(path)
        self._lock = threading.Lock()
        self._writer = _Connection(place, "PRAGMA synchronous = full")
        try:
            self._migrate()
        except BaseException:
            self._writer.close()
            raise
        self._reader = (
            self._writer
            if path is None
            else _Connection(
                place, "PRAGMA query_only = on", "PRAGMA mmap_size = 268435456"
            )
        )
        self.reader = Session(self._reader)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One writing transaction; see the port."""
        with self._lock, self._writer.transaction():
            yield Session(self._writer)

    def note_seen(self, seen: Mapping[str, datetime]) -> None:
        """Write a batch of "last seen" times in one transaction."""
        with self.begin() as session:
            session.note_seen(seen)

    def note_used(self, used: Mapping[str, datetime]) -> None:
        """Write when certificates were first used, in one transaction."""
        with self.begin() as session:
            session.note_used(used)

    def note_looked(self, device_id: str, renew_at: int) -> None:
        """The Director has nothing to sign for a device before ``renew_at``."""
        with self.begin() as session:
            session.note_looked(device_id, renew_at)

    def close(self) -> None:
        """Release both connections."""
        self._reader.close()
        if self._reader is not self._writer:
            self._writer.close()

    def _migrate(self) -> None:
        with self._writer.transaction():
            version = self._writer.rows("PRAGMA user_version")[0][0]
            if version > len(MIGRATIONS):
                raise StateError(
                    f"the database has schema {version}, this Sealift knows "
                    f"{len(MIGRATIONS)}",
                    hint="install the Sealift that wrote it, or a newer one",
                )
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    self._writer.rows(statement)
            self._writer.rows(f"PRAGMA user_version = {len(MIGRATIONS)}")


class _Connection:
    """One SQLite connection whose errors are ours."""

    def __init__(self, place: str, *pragmas: str) -> None:
        with _translated():
            # Threads: writes are serialised by the store's lock, reads happen on one.
            self._sqlite = sqlite3.connect(
                place, isolation_level=None, check_same_thread=False
            )
            for pragma in (*_PRAGMAS, *pragmas):
                self._sqlite.execute(pragma)
        self._before = 0

    def rows(self, sql: str, *values: object) -> Sequence[Row]:
        """Run one statement and fetch everything."""
        with _translated():
            return self._sqlite.execute(sql, values).fetchall()

    def changes(self) -> int:
        """Rows changed since the transaction began."""
        return self._sqlite.total_changes - self._before

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """``BEGIN IMMEDIATE`` to ``COMMIT``; any error undoes all of it."""
        self.rows("BEGIN IMMEDIATE")
        self._before = self._sqlite.total_changes
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            if self._sqlite.in_transaction:
                self.rows("ROLLBACK")
            raise

    def close(self) -> None:
        """Release the connection."""
        self._sqlite.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _ours(error) from error


def _ours(error: sqlite3.Error) -> SealiftError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _FULL:
        return SpaceError("the disk of the server's database is full")
    return StateError(
        f"the server's database refused: {error}",
        hint="look at the disk, the permissions and who else has the file open",
    )
