"""SQL statements of the server, over a connection that somebody else opened.

Written in the common part of SQLite and PostgreSQL; a database is one file beside this
one that opens connections, sets them up and translates errors. The tables of deltas and
content keys are in ``sql_payload``, those of operators in ``sql_access``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sealift.core.errors import AuditUnavailableError, SealiftError
from sealift.core.types import Artifact, Container
from sealift.server import ports
from sealift.server.adapters.rows import (
    Connection,
    Row,
    Table,
    maybe,
    moment,
    packed,
    text,
)
from sealift.server.adapters.sql_access import Tokens
from sealift.server.adapters.sql_payload import ContentKeys, Deltas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sealift.core.audit import Event

__all__ = ["Connection", "Session"]

T = TypeVar("T")


class Session:
    """A transaction as the ports describe it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.devices: ports.Devices = _Devices(connection)
        self.metadata: ports.MetadataFiles = _Metadata(connection)

    @cached_property
    def releases(self) -> ports.Releases:
        """Containers and releases."""
        return _Releases(self._connection)

    @cached_property
    def deployments(self) -> ports.Deployments:
        """Deployments and installations."""
        return _Deployments(self._connection)

    @cached_property
    def deltas(self) -> ports.Deltas:
        """Pairs of images a delta is wanted between, and what became of it."""
        return Deltas(self._connection)

    @cached_property
    def content_keys(self) -> ports.ContentKeys:
        """Content keys of sealed containers, wrapped."""
        return ContentKeys(self._connection)

    @cached_property
    def manifests(self) -> ports.Manifests:
        """Reports as they came in."""
        return _Manifests(self._connection)

    @cached_property
    def audit(self) -> ports.AuditTable:
        """The append-only leaves."""
        return _Audit(self._connection)

    @cached_property
    def tokens(self) -> ports.Tokens:
        """Credentials of the operator API."""
        return Tokens(self._connection)

    @cached_property
    def housekeeping(self) -> ports.Housekeeping:
        """The timetable."""
        return _Housekeeping(self._connection)

    def changes(self) -> int:
        """Rows changed so far in this transaction."""
        return self._connection.changes()

    def note_seen(self, seen: Mapping[str, datetime]) -> None:
        """Write "last seen" times."""
        for device_id, at in seen.items():
            self._connection.rows(
                "UPDATE device SET last_seen = ? WHERE id = ?", text(at), device_id
            )

    def note_used(self, used: Mapping[str, datetime]) -> None:
        """Write when certificates were first used."""
        for sha256, at in used.items():
            self._connection.rows(
                f"{_USED} WHERE sha256 = ? AND used_at IS NULL", text(at), sha256
            )

    def note_looked(self, device_id: str, renew_at: int) -> None:
        """The Director has nothing to sign for a device before ``renew_at``."""
        self._connection.rows(
            "UPDATE director SET renew_at = ? WHERE device_id = ?", renew_at, device_id
        )


# ── devices ──────────────────────────────────────────────────────────────────────────
_CALLER = """SELECT d.id, d.state, c.revoked_at IS NOT NULL, r.etag,
        coalesce(r.renew_at, 0), c.used_at IS NULL
    FROM certificate c JOIN device d ON d.id = c.device_id
    LEFT JOIN director r ON r.device_id = d.id WHERE c.sha256 = ?"""
_DEVICE = """SELECT id, state, report_key_id, report_key, created_at, counter,
    reported_at, report_time, time_source, last_seen, versions, abilities,
    decryption_key, reported_kid FROM device"""
_ECU = """SELECT id, device_id, hardware_id, is_primary, installed_name,
    installed_sha256, installed_length, installed_version, release_counter, attack
    FROM ecu WHERE device_id = ? ORDER BY is_primary DESC, id"""
_CERTIFICATE = """SELECT sha256, device_id, serial, not_before, not_after, revoked_at,
    pem, key_sha256, used_at FROM certificate WHERE device_id = ?
    ORDER BY rowid DESC"""
_BASES = """SELECT e.installed_sha256, count(*) AS devices
    FROM ecu e JOIN device d ON d.id = e.device_id
    WHERE e.hardware_id IN ({marks}) AND d.state = 'active'
        AND e.installed_sha256 IS NOT NULL AND e.installed_sha256 <> ?
        AND e.release_counter <= ? AND (? IS NULL OR EXISTS (SELECT 1
            FROM installation i WHERE i.deployment_id = ? AND i.device_id = e.device_id
                AND i.ecu_id = e.id))
    GROUP BY e.installed_sha256 ORDER BY devices DESC, e.installed_sha256"""
_SAVE_DEVICE = """INSERT INTO device (id, state, report_key_id, report_key, created_at,
        counter, reported_at, report_time, time_source, last_seen, versions,
        abilities, decryption_key, reported_kid)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, counter = excluded.counter,
        reported_at = excluded.reported_at, report_time = excluded.report_time,
        time_source = excluded.time_source, versions = excluded.versions,
        abilities = excluded.abilities, reported_kid = excluded.reported_kid"""
_SAVE_ECU = """INSERT INTO ecu (id, device_id, hardware_id, is_primary, installed_name,
        installed_sha256, installed_length, installed_version, release_counter, attack)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (device_id, id) DO UPDATE SET
        installed_name = excluded.installed_name,
        installed_sha256 = excluded.installed_sha256,
        installed_length = excluded.installed_length,
        installed_version = excluded.installed_version,
        release_counter = excluded.release_counter, attack = excluded.attack"""
_SAVE_CERTIFICATE = """INSERT INTO certificate (sha256, device_id, serial, not_before,
        not_after, revoked_at, pem, key_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (sha256) DO UPDATE SET revoked_at = excluded.revoked_at"""
_USED = "UPDATE certificate SET used_at = ?"
_SUPERSEDED = """SELECT DISTINCT old.device_id FROM certificate old
    JOIN certificate new ON new.device_id = old.device_id AND new.rowid > old.rowid
    WHERE old.revoked_at IS NULL AND new.revoked_at IS NULL AND new.used_at < ?
    ORDER BY old.device_id LIMIT 1000"""


class _Devices(Table):
    def caller(self, certificate_sha256: str) -> ports.Caller | None:
        row = self.one(_CALLER, certificate_sha256)
        if row is None:
            return None
        device_id, state, revoked, etag, renew_at, unused = row
        return ports.Caller(
            device_id, state, bool(revoked), etag, renew_at, first_use=bool(unused)
        )

    def find(self, device_id: str) -> ports.Device | None:
        row = self.one(f"{_DEVICE} WHERE id = ?", device_id)
        return None if row is None else _device(row)

    def all(self, after: str = "", limit: int = 1000) -> Sequence[ports.Device]:
        sql = f"{_DEVICE} WHERE id > ? ORDER BY id LIMIT ?"
        return [_device(row) for row in self.rows(sql, after, limit)]

    def save(self, device: ports.Device) -> None:
        self.rows(
            _SAVE_DEVICE,
            device.id,
            device.state,
            device.report_key_id,
            packed(device.report_key),
            text(device.created_at),
            device.counter,
            text(device.reported_at),
            text(device.report_time),
            device.time_source,
            text(device.last_seen),
            packed(device.versions),
            packed(device.abilities),
            None if device.decryption_key is None else packed(device.decryption_key),
            device.reported_kid,
        )

    def bases(self, wanted: ports.Wanted) -> Sequence[tuple[str, int]]:
        marks = ", ".join("?" * len(wanted.hardware_ids))
        found = self.rows(
            _BASES.format(marks=marks),
            *wanted.hardware_ids,
            wanted.sha256,
            wanted.release_counter,
            wanted.deployment_id,
            wanted.deployment_id,
        )
        return [(row[0], row[1]) for row in found]

    def ecus(self, device_id: str) -> Sequence[ports.Ecu]:
        return [_ecu(row) for row in self.rows(_ECU, device_id)]

    def save_ecu(self, ecu: ports.Ecu) -> None:
        self.rows(
            _SAVE_ECU,
            ecu.id,
            ecu.device_id,
            ecu.hardware_id,
            int(ecu.primary),
            ecu.installed_name,
            ecu.installed_sha256,
            ecu.installed_length,
            ecu.installed_version,
            ecu.release_counter,
            ecu.attack,
        )

    def certificates(self, device_id: str) -> Sequence[ports.Certificate]:
        return [_certificate(row) for row in self.rows(_CERTIFICATE, device_id)]

    def save_certificate(self, certificate: ports.Certificate) -> None:
        self.rows(
            _SAVE_CERTIFICATE,
            certificate.sha256,
            certificate.device_id,
            certificate.serial,
            text(certificate.not_before),
            text(certificate.not_after),
            text(certificate.revoked_at),
            certificate.pem,
            certificate.key_sha256,
        )

    def holder(self, key_sha256: str) -> str | None:
        sql = "SELECT device_id FROM certificate WHERE key_sha256 = ? LIMIT 1"
        row = self.one(sql, key_sha256)
        return None if row is None else str(row[0])

    def superseded(self, used_before: datetime) -> Sequence[str]:
        return [row[0] for row in self.rows(_SUPERSEDED, text(used_before))]

    def key_in_use(self, report_key_id: str) -> bool:
        sql = "SELECT 1 FROM device WHERE report_key_id = ?"
        return self.one(sql, report_key_id) is not None


def _device(row: Row) -> ports.Device:
    return ports.Device(
        id=row[0],
        state=row[1],
        report_key_id=row[2],
        report_key=json.loads(row[3]),
        created_at=moment(row[4]),
        counter=row[5],
        reported_at=maybe(row[6]),
        report_time=maybe(row[7]),
        time_source=row[8],
        last_seen=maybe(row[9]),
        versions=json.loads(row[10]),
        abilities=tuple(json.loads(row[11])),
        decryption_key=None if row[12] is None else json.loads(row[12]),
        reported_kid=row[13],
    )


def _ecu(row: Row) -> ports.Ecu:
    return ports.Ecu(row[0], row[1], row[2], bool(row[3]), *row[4:])


def _certificate(row: Row) -> ports.Certificate:
    return ports.Certificate(
        sha256=row[0],
        device_id=row[1],
        serial=row[2],
        not_before=moment(row[3]),
        not_after=moment(row[4]),
        revoked_at=maybe(row[5]),
        pem=row[6],
        key_sha256=row[7],
        used_at=maybe(row[8]),
    )


# ── metadata ─────────────────────────────────────────────────────────────────────────
_METADATA = """SELECT repository, role, version, body, sha256, published_at
    FROM metadata WHERE repository = ? AND role = ?"""
_CONTAINER = "SELECT name, length, sha256, stored_at FROM container"
_DIRECTOR = """SELECT device_id, targets, snapshot, timestamp, versions, etag, renew_at
    FROM director WHERE device_id = ?"""
_SAVE_DIRECTOR = """INSERT INTO director (device_id, targets, snapshot, timestamp,
        versions, etag, renew_at) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (device_id) DO UPDATE SET targets = excluded.targets,
        snapshot = excluded.snapshot, timestamp = excluded.timestamp,
        versions = excluded.versions, etag = excluded.etag,
        renew_at = excluded.renew_at"""

_OUTDATE_PAIR = """UPDATE director SET renew_at = 0 WHERE device_id IN
    (SELECT i.device_id FROM installation i
        JOIN ecu e ON e.device_id = i.device_id AND e.id = i.ecu_id
        WHERE i.is_open = 1 AND i.sha256 = ? AND e.installed_sha256 = ?
            AND i.state IN ('waiting', 'offered'))"""


class _Metadata(Table):
    def find(
        self, repository: str, role: str, version: int
    ) -> ports.MetadataFile | None:
        row = self.one(f"{_METADATA} AND version = ?", repository, role, version)
        return None if row is None else _metadata(row)

    def newest(self, repository: str, role: str) -> ports.MetadataFile | None:
        sql = f"{_METADATA} ORDER BY version DESC LIMIT 1"
        row = self.one(sql, repository, role)
        return None if row is None else _metadata(row)

    def add(self, file: ports.MetadataFile) -> None:
        self.rows(
            "INSERT INTO metadata VALUES (?, ?, ?, ?, ?, ?)",
            file.repository,
            file.role,
            file.version,
            file.body,
            file.sha256,
            text(file.published_at),
        )

    def director(self, device_id: str) -> ports.DirectorRecord | None:
        row = self.one(_DIRECTOR, device_id)
        if row is None:
            return None
        return ports.DirectorRecord(
            row[0], row[1], row[2], row[3], _triple(row[4]), row[5], row[6]
        )

    def save_director(
        self, record: ports.DirectorRecord, containers: Sequence[str]
    ) -> None:
        self.rows(
            _SAVE_DIRECTOR,
            record.device_id,
            record.targets,
            record.snapshot,
            record.timestamp,
            packed(record.versions),
            record.etag,
            record.renew_at,
        )
        owner = record.device_id
        self.rows("DELETE FROM ordered_container WHERE device_id = ?", owner)
        for name in sorted(set(containers)):
            self.rows("INSERT INTO ordered_container VALUES (?, ?)", owner, name)

    def outdate(self, device_id: str | None = None) -> None:
        sql = "UPDATE director SET renew_at = 0 WHERE ? IS NULL OR device_id = ?"
        self.rows(sql, device_id, device_id)

    def outdate_ordered(self) -> None:
        self.rows(
            """UPDATE director SET renew_at = 0 WHERE device_id IN
                (SELECT device_id FROM installation WHERE is_open = 1)"""
        )

    def outdate_pair(self, base_sha256: str, new_sha256: str) -> None:
        self.rows(_OUTDATE_PAIR, new_sha256, base_sha256)

    def ordered(self, device_id: str, name: str) -> ports.StoredContainer | None:
        sql = f"{_CONTAINER} JOIN ordered_container USING (name) WHERE device_id = ?"
        row = self.one(f"{sql} AND name = ?", device_id, name)
        return None if row is None else _container(row)

    def versions(self, repository: str) -> Sequence[tuple[str, int]]:
        sql = "SELECT role, version FROM metadata WHERE repository = ?"
        return [(row[0], row[1]) for row in self.rows(sql, repository)]


def _metadata(row: Row) -> ports.MetadataFile:
    return ports.MetadataFile(row[0], row[1], row[2], row[3], row[4], moment(row[5]))


# ── releases ─────────────────────────────────────────────────────────────────────────
_RELEASE = """SELECT id, product, version, sequence, items, published_at
    FROM release"""


class _Releases(Table):
    def container(self, name: str) -> ports.StoredContainer | None:
        row = self.one(f"{_CONTAINER} WHERE name = ?", name)
        return None if row is None else _container(row)

    def add_container(self, container: ports.StoredContainer) -> None:
        self.rows(
            "INSERT INTO container VALUES (?, ?, ?, ?)",
            container.name,
            container.length,
            container.sha256,
            text(container.stored_at),
        )

    def find(self, release_id: str) -> ports.Release | None:
        row = self.one(f"{_RELEASE} WHERE id = ?", release_id)
        return None if row is None else _release(row)

    def all(self) -> Sequence[ports.Release]:
        sql = f"{_RELEASE} ORDER BY published_at DESC, sequence DESC"
        return [_release(row) for row in self.rows(sql)]

    def add(self, release: ports.Release) -> None:
        self.rows(
            "INSERT INTO release VALUES (?, ?, ?, ?, ?, ?)",
            release.id,
            release.product,
            release.version,
            release.sequence,
            packed([_item_json(item) for item in release.items]),
            text(release.published_at),
        )


def _container(row: Row) -> ports.StoredContainer:
    return ports.StoredContainer(row[0], row[1], row[2], moment(row[3]))


def _release(row: Row) -> ports.Release:
    items = tuple(_item(found) for found in json.loads(row[4]))
    return ports.Release(row[0], row[1], row[2], row[3], items, moment(row[5]))


def _item_json(item: ports.ReleaseItem) -> dict[str, object]:
    found: dict[str, object] = {
        "artifact": item.artifact.to_json(),
        "full": item.full.to_json(),
    }
    return found | {"sealed": True} if item.sealed else found


def _item(found: dict[str, Any]) -> ports.ReleaseItem:
    return ports.ReleaseItem(
        Artifact.from_json(found["artifact"]),
        Container.from_json(found["full"]),
        bool(found.get("sealed", False)),
    )


# ── deployments ──────────────────────────────────────────────────────────────────────
_DEPLOYMENT = """SELECT id, release_id, state, reason, created_at, bytes_max, delta_wait
    FROM deployment"""
_INSTALLATION = """SELECT id, deployment_id, device_id, ecu_id, path, sha256, state,
    code, changed_at, offer, done FROM installation"""
_NEWEST_FIRST = """ORDER BY (SELECT number FROM deployment
    WHERE deployment.id = installation.deployment_id) DESC, ecu_id"""
_SAVE_DEPLOYMENT = """INSERT INTO deployment (id, release_id, state, reason, created_at,
        bytes_max, delta_wait, number) VALUES (?, ?, ?, ?, ?, ?, ?,
        (SELECT coalesce(max(number), 0) + 1 FROM deployment))
    ON CONFLICT (id) DO UPDATE SET state = excluded.state"""
_SAVE_INSTALLATION = """INSERT INTO installation (id, deployment_id, device_id, ecu_id,
        path, sha256, state, code, changed_at, offer, done, is_open)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, code = excluded.code,
        changed_at = excluded.changed_at, offer = excluded.offer,
        done = excluded.done, is_open = excluded.is_open"""
_ENDED = frozenset({"succeeded", "failed", "rolled_back", "cancelled", "superseded"})


class _Deployments(Table):
    def find(self, deployment_id: str) -> ports.Deployment | None:
        row = self.one(f"{_DEPLOYMENT} WHERE id = ?", deployment_id)
        return None if row is None else _deployment(row)

    def all(self) -> Sequence[ports.Deployment]:
        sql = f"{_DEPLOYMENT} ORDER BY number DESC"
        return [_deployment(row) for row in self.rows(sql)]

    def save(self, deployment: ports.Deployment) -> None:
        self.rows(
            _SAVE_DEPLOYMENT,
            deployment.id,
            deployment.release_id,
            deployment.state,
            deployment.reason,
            text(deployment.created_at),
            deployment.bytes_max,
            deployment.delta_wait,
        )

    def installations(self, deployment_id: str) -> Sequence[ports.Installation]:
        sql = f"{_INSTALLATION} WHERE deployment_id = ? ORDER BY device_id, ecu_id"
        return [_installation(row) for row in self.rows(sql, deployment_id)]

    def installations_on(self, device_id: str) -> Sequence[ports.Installation]:
        sql = f"{_INSTALLATION} WHERE device_id = ? {_NEWEST_FIRST}"
        return [_installation(row) for row in self.rows(sql, device_id)]

    def open_installations(self, device_id: str) -> Sequence[ports.Installation]:
        sql = f"{_INSTALLATION} WHERE device_id = ? AND is_open = 1 ORDER BY ecu_id"
        return [_installation(row) for row in self.rows(sql, device_id)]

    def save_installation(self, installation: ports.Installation) -> None:
        self.rows(
            _SAVE_INSTALLATION,
            installation.id,
            installation.deployment_id,
            installation.device_id,
            installation.ecu_id,
            installation.path,
            installation.sha256,
            installation.state,
            installation.code,
            text(installation.changed_at),
            _fields(installation.offer),
            _fields(installation.done),
            int(installation.state not in _ENDED),
        )

    def complete(self, deployment_id: str) -> None:
        self.rows(
            """UPDATE deployment SET state = 'completed'
                WHERE id = ? AND state = 'running' AND NOT EXISTS (SELECT 1
                    FROM installation WHERE deployment_id = ? AND is_open = 1)""",
            deployment_id,
            deployment_id,
        )

    def counts(self, deployment_id: str) -> Mapping[str, int]:
        sql = """SELECT state, count(*) FROM installation WHERE deployment_id = ?
            GROUP BY state ORDER BY state"""
        return {row[0]: row[1] for row in self.rows(sql, deployment_id)}


def _deployment(row: Row) -> ports.Deployment:
    return ports.Deployment(row[0], row[1], row[2], row[3], moment(row[4]), *row[5:])


def _installation(row: Row) -> ports.Installation:
    return ports.Installation(
        id=row[0],
        deployment_id=row[1],
        device_id=row[2],
        ecu_id=row[3],
        path=row[4],
        sha256=row[5],
        state=row[6],
        code=row[7],
        changed_at=moment(row[8]),
        offer=_of(ports.Offer, row[9]),
        done=_of(ports.Done, row[10]),
    )


def _fields(value: ports.Offer | ports.Done | None) -> str:
    return packed(None if value is None else asdict(value))


def _of(kind: type[T], stored: str) -> T | None:
    found = json.loads(stored)
    return None if found is None else kind(**found)


# ── evidence ─────────────────────────────────────────────────────────────────────────
_MANIFEST = """SELECT device_id, sha256, counter, received_at, verdict, body
    FROM manifest WHERE device_id = ?"""
_ADD_MANIFEST = """INSERT INTO manifest (device_id, sha256, counter, received_at,
        verdict, body) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (device_id, sha256) DO NOTHING RETURNING number"""


class _Manifests(Table):
    def add(self, manifest: ports.Manifest) -> bool:
        added = self.rows(
            _ADD_MANIFEST,
            manifest.device_id,
            manifest.sha256,
            manifest.counter,
            text(manifest.received_at),
            manifest.verdict,
            manifest.body,
        )
        return bool(added)

    def accepted(self, device_id: str, limit: int) -> Sequence[str]:
        sql = """SELECT sha256 FROM manifest WHERE device_id = ?
            AND verdict = 'accepted' ORDER BY number DESC LIMIT ?"""
        return [row[0] for row in self.rows(sql, device_id, limit)]

    def refused_since(self, device_id: str, since: datetime) -> int:
        sql = """SELECT count(*) FROM manifest WHERE device_id = ?
            AND verdict <> 'accepted' AND received_at >= ?"""
        return int(self.rows(sql, device_id, text(since))[0][0])

    def of(self, device_id: str, limit: int = 50) -> Sequence[ports.Manifest]:
        sql = f"{_MANIFEST} ORDER BY number DESC LIMIT ?"
        return [_manifest(row) for row in self.rows(sql, device_id, limit)]


def _manifest(row: Row) -> ports.Manifest:
    return ports.Manifest(row[0], row[1], row[2], moment(row[3]), row[4], row[5])


class _Audit(Table):
    def append(self, event: Event, leaf: bytes, leaf_hash: bytes) -> int:
        sql = """INSERT INTO audit_leaf (id, kind, body, leaf_hash)
            VALUES (?, ?, ?, ?) RETURNING position"""
        try:
            row = self.one(sql, event.id, event.kind.value, leaf, leaf_hash)
        except SealiftError as error:
            raise AuditUnavailableError(
                "the audit log cannot be written, so nothing was changed",
                hint="look at the server's disk and at the database's permissions",
            ) from error
        if row is None:
            raise AuditUnavailableError("the audit log gave no position back")
        return int(row[0])

    def size(self) -> int:
        row = self.one("SELECT coalesce(max(position), 0) FROM audit_leaf")
        return 0 if row is None else int(row[0])

    def page(self, after: int = 0, limit: int = 100) -> Sequence[ports.Leaf]:
        sql = """SELECT position, id, kind, body, leaf_hash FROM audit_leaf
            WHERE position > ? ORDER BY position LIMIT ?"""
        return [ports.Leaf(*row) for row in self.rows(sql, after, limit)]


# ── housekeeping ─────────────────────────────────────────────────────────────────────
_TAKE = """UPDATE job SET owner = ?, lease_until = ? WHERE name = ? AND run_at <= ?
    AND (lease_until IS NULL OR lease_until <= ?) RETURNING name"""


class _Housekeeping(Table):
    def take_lease(self, job: str, owner: str, now: datetime, until: datetime) -> bool:
        stamp = text(now)
        self.rows(
            "INSERT INTO job (name, run_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
            job,
            stamp,
        )
        return bool(self.rows(_TAKE, owner, text(until), job, stamp, stamp))

    def finish(self, job: str, owner: str, next_run: datetime) -> None:
        self.rows(
            """UPDATE job SET run_at = ?, lease_until = NULL, owner = NULL
                WHERE name = ? AND owner = ?""",
            text(next_run),
            job,
            owner,
        )


def _triple(text: str) -> tuple[int, int, int]:
    first, second, third = json.loads(text)
    return first, second, third
