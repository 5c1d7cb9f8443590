"""The schema, version by version. A version once released is never edited.

Each entry is run in one transaction together with the note that it ran.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

_FIRST = (
    """CREATE TABLE operator_token (
        sha256 TEXT PRIMARY KEY,
        created_at TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE device (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('active', 'quarantined', 'revoked')),
        report_key_id TEXT NOT NULL UNIQUE,
        report_key TEXT NOT NULL,
        created_at TEXT NOT NULL,
        counter INTEGER NOT NULL,
        reported_at TEXT,
        report_time TEXT,
        time_source TEXT,
        last_seen TEXT,
        versions TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE ecu (
        id TEXT NOT NULL,
        device_id TEXT NOT NULL REFERENCES device (id),
        hardware_id TEXT NOT NULL,
        is_primary INTEGER NOT NULL,
        installed_name TEXT,
        installed_sha256 TEXT,
        installed_length INTEGER,
        installed_version TEXT,
        release_counter INTEGER NOT NULL,
        attack TEXT,
        PRIMARY KEY (device_id, id)
    ) STRICT""",
    """CREATE TABLE certificate (
        sha256 TEXT PRIMARY KEY,
        device_id TEXT NOT NULL REFERENCES device (id),
        serial TEXT NOT NULL UNIQUE,
        not_before TEXT NOT NULL,
        not_after TEXT NOT NULL,
        revoked_at TEXT,
        pem TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX certificate_device ON certificate (device_id)",
    """CREATE TABLE metadata (
        repository TEXT NOT NULL CHECK (repository IN ('image', 'director')),
        role TEXT NOT NULL,
        version INTEGER NOT NULL,
        body BLOB NOT NULL,
        sha256 TEXT NOT NULL,
        published_at TEXT NOT NULL,
        PRIMARY KEY (repository, role, version)
    ) STRICT""",
    """CREATE TABLE director (
        device_id TEXT PRIMARY KEY REFERENCES device (id),
        targets BLOB NOT NULL,
        snapshot BLOB NOT NULL,
        timestamp BLOB NOT NULL,
        versions TEXT NOT NULL,
        etag TEXT NOT NULL,
        renew_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE container (
        name TEXT PRIMARY KEY,
        length INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        stored_at TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE ordered_container (
        device_id TEXT NOT NULL REFERENCES device (id),
        name TEXT NOT NULL REFERENCES container (name),
        PRIMARY KEY (device_id, name)
    ) STRICT""",
    """CREATE TABLE release (
        id TEXT PRIMARY KEY,
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        items TEXT NOT NULL,
        published_at TEXT NOT NULL,
        UNIQUE (product, sequence)
    ) STRICT""",
    """CREATE TABLE deployment (
        id TEXT PRIMARY KEY,
        release_id TEXT NOT NULL REFERENCES release (id),
        state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'aborted')),
        reason TEXT NOT NULL,
        created_at TEXT NOT NULL,
        number INTEGER NOT NULL UNIQUE
    ) STRICT""",
    """CREATE TABLE installation (
        id TEXT PRIMARY KEY,
        deployment_id TEXT NOT NULL REFERENCES deployment (id),
        device_id TEXT NOT NULL REFERENCES device (id),
        ecu_id TEXT NOT NULL,
        path TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        state TEXT NOT NULL,
        is_open INTEGER NOT NULL,
        code TEXT,
        changed_at TEXT NOT NULL,
        UNIQUE (deployment_id, device_id, ecu_id)
    ) STRICT""",
    "CREATE INDEX installation_device ON installation (device_id)",
    # One open order per component: two at once would be two truths for one slot.
    """CREATE UNIQUE INDEX installation_open ON installation (device_id, ecu_id)
        WHERE is_open = 1""",
    """CREATE TABLE manifest (
        device_id TEXT NOT NULL REFERENCES device (id),
        sha256 TEXT NOT NULL,
        counter INTEGER,
        received_at TEXT NOT NULL,
        verdict TEXT NOT NULL,
        body BLOB NOT NULL,
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        UNIQUE (device_id, sha256)
    ) STRICT""",
    """CREATE UNIQUE INDEX manifest_counter ON manifest (device_id, counter)
        WHERE verdict = 'accepted'""",
    """CREATE TABLE audit_leaf (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        body BLOB NOT NULL,
        leaf_hash BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE job (
        name TEXT PRIMARY KEY,
        run_at TEXT NOT NULL,
        lease_until TEXT,
        owner TEXT
    ) STRICT""",
)

_SECOND = (
    "ALTER TABLE device ADD COLUMN abilities TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE device ADD COLUMN decryption_key TEXT",
    "ALTER TABLE device ADD COLUMN reported_kid TEXT",
    "ALTER TABLE deployment ADD COLUMN bytes_max INTEGER",
    "ALTER TABLE deployment ADD COLUMN delta_wait INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE installation ADD COLUMN offer TEXT NOT NULL DEFAULT 'null'",
    "ALTER TABLE installation ADD COLUMN done TEXT NOT NULL DEFAULT 'null'",
    # A sealed full container is sealed once, so its digest names one content key; of a
    # plain one it names the bytes. Either way deltas to it are good beside it.
    """CREATE TABLE delta (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        base_sha256 TEXT NOT NULL,
        full_sha256 TEXT NOT NULL,
        new_sha256 TEXT NOT NULL,
        path TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('wanted', 'making', 'ready', 'useless', 'failed', 'cancelled')),
        origin TEXT NOT NULL CHECK (origin IN ('server', 'desk')),
        devices INTEGER NOT NULL,
        container TEXT,
        length INTEGER,
        full_length INTEGER NOT NULL,
        cpu_ms INTEGER,
        reason TEXT,
        attempts INTEGER NOT NULL,
        patch TEXT,
        wanted_at TEXT NOT NULL,
        changed_at TEXT NOT NULL,
        run_at TEXT NOT NULL,
        owner TEXT,
        lease_until TEXT,
        UNIQUE (base_sha256, full_sha256)
    ) STRICT""",
    """CREATE INDEX delta_due ON delta (run_at)
        WHERE state IN ('wanted', 'making')""",
    "CREATE INDEX delta_full ON delta (full_sha256)",
    """CREATE TABLE content_key (
        sealed_sha256 TEXT PRIMARY KEY,
        path TEXT NOT NULL,
        image_sha256 TEXT NOT NULL,
        wrap TEXT NOT NULL,
        stored_at TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX content_key_image ON content_key (image_sha256)",
    "CREATE INDEX installation_order ON installation (sha256) WHERE is_open = 1",
)

_THIRD = (
    """CREATE TABLE api_token (
        name TEXT PRIMARY KEY,
        sha256 TEXT NOT NULL UNIQUE,
        roles TEXT NOT NULL,
        created_by TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT,
        revoked_at TEXT
    ) STRICT""",
    """INSERT INTO api_token (name, sha256, roles, created_by, created_at)
        SELECT 'operator', sha256, '["admin"]', 'server', created_at
        FROM operator_token""",
    "DROP TABLE operator_token",
    "ALTER TABLE certificate ADD COLUMN key_sha256 TEXT",
    "ALTER TABLE certificate ADD COLUMN used_at TEXT",
    "CREATE INDEX certificate_key ON certificate (key_sha256)",
)

_APPEND_ONLY = ("audit_leaf", "manifest", "metadata", "container", "release")


def _guards(tables: tuple[str, ...]) -> tuple[str, ...]:
    """Triggers that refuse to change what is evidence or was published."""
    return tuple(
        f"""CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
            BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"""
        for table in tables
        for verb in ("UPDATE", "DELETE")
    )


MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (*_FIRST, *_guards(_APPEND_ONLY)),
    _SECOND,
    _THIRD,
)
"""``MIGRATIONS[n]`` leads from schema version ``n`` to ``n + 1``."""
