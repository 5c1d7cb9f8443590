"""SQL of what payloads need: deltas with the work on them, wrapped content keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.core.types import Container, Patch, Wrap
from sealift.server import ports
from sealift.server.adapters.rows import Row, Table, moment, packed, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["ContentKeys", "Deltas"]

_DELTA = """SELECT number, base_sha256, full_sha256, new_sha256, path, state, origin,
    devices, full_length, wanted_at, changed_at, run_at, container, length, cpu_ms,
    reason, attempts, patch FROM delta"""
_ADD = """INSERT INTO delta (base_sha256, full_sha256, new_sha256, path, state, origin,
        devices, full_length, wanted_at, changed_at, run_at, container, length, cpu_ms,
        reason, attempts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number"""
_SAVE = """UPDATE delta SET state = ?, devices = ?, changed_at = ?, run_at = ?,
        container = ?, length = ?, cpu_ms = ?, reason = ?, attempts = ?,
        origin = ?, patch = ?, owner = NULL, lease_until = NULL WHERE number = ?"""
_CLAIM = """UPDATE delta SET state = 'making', owner = ?, lease_until = ?,
        changed_at = ?, attempts = attempts + 1
    WHERE number = (SELECT number FROM delta
        WHERE (state = 'wanted' AND run_at <= ?)
            OR (state = 'making' AND lease_until <= ?)
        ORDER BY devices DESC, number LIMIT 1) RETURNING number"""
_RENEW = """UPDATE delta SET lease_until = ?
    WHERE number = ? AND state = 'making' AND owner = ? RETURNING number"""

_GIVE_BACK = """UPDATE delta SET state = 'wanted', owner = NULL, lease_until = NULL,
        attempts = attempts - 1
    WHERE number = ? AND state = 'making' AND owner = ?"""


class Deltas(Table):
    """Deltas wanted and made; see the port."""

    def find(self, number: int) -> ports.Delta | None:
        """One row."""
        row = self.one(f"{_DELTA} WHERE number = ?", number)
        return None if row is None else _delta(row)

    def between(self, base_sha256: str, full_sha256: str) -> ports.Delta | None:
        """The row of a pair."""
        sql = f"{_DELTA} WHERE base_sha256 = ? AND full_sha256 = ?"
        row = self.one(sql, base_sha256, full_sha256)
        return None if row is None else _delta(row)

    def to(self, full_sha256: str) -> Sequence[ports.Delta]:
        """Every row of one new image."""
        sql = f"{_DELTA} WHERE full_sha256 = ? ORDER BY number"
        return [_delta(row) for row in self.rows(sql, full_sha256)]

    def all(self, after: int = 0, limit: int = 1000) -> Sequence[ports.Delta]:
        """Rows in order of their numbers, those after ``after``."""
        sql = f"{_DELTA} WHERE number > ? ORDER BY number LIMIT ?"
        return [_delta(row) for row in self.rows(sql, after, limit)]

    def add(self, delta: ports.Delta) -> int:
        """Insert under the next number, which is returned."""
        row = self.rows(
            _ADD,
            delta.base_sha256,
            delta.full_sha256,
            delta.new_sha256,
            delta.path,
            delta.state,
            delta.origin,
            delta.devices,
            delta.full_length,
            text(delta.wanted_at),
            text(delta.changed_at),
            text(delta.run_at),
            _stored(delta.container),
            delta.length,
            delta.cpu_ms,
            delta.reason,
            delta.attempts,
        )[0]
        return int(row[0])

    def save(self, delta: ports.Delta) -> None:
        """Replace what may change, and end whoever's lease."""
        self.rows(
            _SAVE,
            delta.state,
            delta.devices,
            text(delta.changed_at),
            text(delta.run_at),
            _stored(delta.container),
            delta.length,
            delta.cpu_ms,
            delta.reason,
            delta.attempts,
            delta.origin,
            _stored(delta.patch),
            delta.number,
        )

    def claim(self, owner: str, now: datetime, until: datetime) -> ports.Delta | None:
        """Take the due row with most devices."""
        stamp = text(now)
        row = self.one(_CLAIM, owner, text(until), stamp, stamp, stamp)
        return None if row is None else self.find(row[0])

    def renew(self, number: int, owner: str, until: datetime) -> bool:
        """Hold a row longer, if it is still ours."""
        return bool(self.rows(_RENEW, text(until), number, owner))

    def give_back(self, number: int, owner: str) -> None:
        """Leave a row as if it had not been taken, if it is still ours."""
        self.rows(_GIVE_BACK, number, owner)

    def is_held(self, number: int, owner: str) -> bool:
        """Whether a row is still being made by that owner."""
        sql = "SELECT 1 FROM delta WHERE number = ? AND owner = ? AND state = 'making'"
        return self.one(sql, number, owner) is not None


class ContentKeys(Table):
    """Wrapped content keys; see the port."""

    def find(self, sealed_sha256: str) -> ports.ContentKey | None:
        """That of one sealed full container."""
        row = self.one(
            """SELECT sealed_sha256, path, image_sha256, wrap, stored_at
                FROM content_key WHERE sealed_sha256 = ?""",
            sealed_sha256,
        )
        if row is None:
            return None
        wrap = Wrap.from_json(json.loads(row[3]))
        return ports.ContentKey(row[0], row[1], row[2], wrap, moment(row[4]))

    def seals(self, image_sha256: str) -> bool:
        """Whether an image was ever published sealed."""
        sql = "SELECT 1 FROM content_key WHERE image_sha256 = ?"
        return self.one(sql, image_sha256) is not None

    def add(self, key: ports.ContentKey) -> None:
        """Insert."""
        self.rows(
            """INSERT INTO content_key (sealed_sha256, path, image_sha256, wrap,
                stored_at) VALUES (?, ?, ?, ?, ?)""",
            key.sealed_sha256,
            key.path,
            key.image_sha256,
            packed(key.wrap.to_json()),
            text(key.stored_at),
        )


def _stored(container: Container | Patch | None) -> str | None:
    return None if container is None else packed(container.to_json())


def _delta(row: Row) -> ports.Delta:
    container = None if row[12] is None else Container.from_json(json.loads(row[12]))
    times = [moment(at) for at in row[9:12]]
    patch = None if row[17] is None else Patch.from_json(json.loads(row[17]))
    return ports.Delta(*(*row[:9], *times, container, *row[13:17], patch))
