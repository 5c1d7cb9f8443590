"""A server's directory kept elsewhere, and brought back.

```
BACKUP/backup.json       what belongs to it, each file with its SHA-256; written last
BACKUP/MOMENT.db         the database as of one moment, also of a running server
BACKUP/server.toml, public/*
BACKUP/keys/*.pem        private keys, each encrypted with the passphrase of the backup
BACKUP/blobs/SHA256      payload containers; those that are there already stay
```
Whatever is cut short, the last ``backup.json`` names files that are all there. Nothing
is believed at a restore that does not have its digest, and nothing appears under the
server's name before all of it was opened and compared.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.core.audit import Kind
from sealift.core.errors import InvalidConfigError, SpaceError, StateError
from sealift.repo import keyfile
from sealift.repo.files import digest_of, read_bounded, sync_directory, write_atomic
from sealift.server.app import open_means
from sealift.server.config import Layout
from sealift.server.directory import open_directory
from sealift.server.services import accounts, audit
from sealift.server.services.audit import SYSTEM, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sealift.server.ports import Chance, Clock, Means

    Report = Callable[[str, int, int], None]

__all__ = ["Backup", "Restored", "backup", "drill", "restore"]

MANIFEST = "backup.json"
MANIFEST_BYTES_MAX = 256 << 20
SMALL_BYTES_MAX = 1 << 20
_PIECE = 1 << 20
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Backup:
    """What ``backup.json`` says. ``files`` are digests by relative name, blobs too."""

    made_at: str
    sealift: str
    database: str
    leaves: int
    keys: bool
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The manifest."""
        return {
            "schema": 1,
            "made_at": self.made_at,
            "sealift": self.sealift,
            "database": self.database,
            "leaves": self.leaves,
            "keys": self.keys,
            "files": self.files,
        }

    @classmethod
    def read(cls, place: Path) -> Backup:
        """That of a directory.

        Raises:
            InvalidConfigError: there is none, or it is none of ours.
        """
        try:
            found = json.loads(read_bounded(place / MANIFEST, MANIFEST_BYTES_MAX))
            files = {str(n): str(digest) for n, digest in found["files"].items()}
            if found["schema"] != 1 or any(map(_leads_out, files)):
                raise ValueError("schema or names")
            return cls(
                str(found["made_at"]),
                str(found["sealift"]),
                str(found["database"]),
                int(found["leaves"]),
                found["keys"] is True,
                files,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidConfigError(
                f"{place} holds no backup of a server: {error}",
                hint="name the directory that sealift server backup wrote",
            ) from error


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found: the backup, and a token that is shown this once."""

    backup: Backup
    operator_token: str
    containers: int
    leaves: int


# ── backup ───────────────────────────────────────────────────────────────────────────
def backup(
    root: Path,
    place: Path,
    clock: Clock,
    chance: Chance,
    *,
    version: str,
    passphrase: str | None,
    progress: Report = lambda *_: None,
) -> Backup:
    """Write or renew the backup in ``place``; the server may run meanwhile.

    Without a passphrase no key is copied, and there must be another copy of them.

    Raises:
        InvalidConfigError, KeyUnreadableError: the server's directory is not one, or
        ``place`` holds something else. StateError: the database cannot be read, or a
        container is not what it was stored as. SpaceError: no room.
    """
    opened = open_directory(root, clock.now())
    layout = opened.layout
    _prepare(place)
    means = open_means(opened, clock, chance)
    try:
        moment = clock.now()
        database = f"{moment.strftime(_STAMP)}-{chance.token_bytes(4).hex()}.db"
        _copy_database(layout.database, place / database)
        with closing(_opened(place / database)) as copy:
            wanted = _containers(copy)
            (leaves,) = copy.execute("SELECT count(*) FROM audit_leaf").fetchone()
        files = dict(_small_files(layout, place, passphrase))
        files[database] = digest_of(place / database).hex()
        files |= _copy_blobs(layout.blobs, place / "blobs", wanted, progress)
        found = Backup(
            moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            version,
            database,
            leaves,
            passphrase is not None,
            files,
        )
        raw = json.dumps(found.to_json(), indent=1, sort_keys=True).encode() + b"\n"
        write_atomic(place / MANIFEST, raw, mode=0o600)
        _forget_others(place, database)
        with recorded(means, SYSTEM) as unit:
            unit.record(
                Kind.SERVER_BACKED_UP,
                {
                    "manifest_sha256": sha256(raw).hexdigest(),
                    "leaves": leaves,
                    "containers": len(wanted),
                    "keys": found.keys,
                },
            )
    finally:
        means.store.close()
    return found


def _prepare(place: Path) -> None:
    """The directory, made, or one with an earlier backup in it."""
    try:
        ours = (place / MANIFEST).exists() or (place / "blobs").is_dir()
        if place.exists() and any(place.iterdir()) and not ours:
            raise InvalidConfigError(
                f"{place} holds something else",
                hint="name a new directory, or one with an earlier backup",
            )
        place.mkdir(mode=0o700, exist_ok=True)
        for name in ("blobs", "keys", "public"):
            (place / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InvalidConfigError(
            f"{place} cannot be written: {error.strerror}",
            hint="the directory above it must exist and be writable",
        ) from error


def _copy_database(source: Path, target: Path) -> None:
    """One moment of a database that may be written meanwhile."""
    try:
        target.touch(mode=0o600)
        with closing(_opened(source)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = delete")
        _sync(target)
    except (sqlite3.Error, OSError) as error:
        target.unlink(missing_ok=True)
        raise StateError(f"the database cannot be copied: {error}") from error


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _containers(database: sqlite3.Connection) -> dict[str, int]:
    """Length by digest of every container the database knows."""
    rows = database.execute("SELECT sha256, length FROM container").fetchall()
    return {str(digest): int(length) for digest, length in rows}


def _small_files(
    layout: Layout, place: Path, passphrase: str | None
) -> Iterator[tuple[str, str]]:
    """Settings, public files, and keys under the passphrase."""
    sources = [layout.config, *sorted(layout.public.iterdir())]
    for source in sources:
        name = str(source.relative_to(layout.root))
        yield name, _put(place / name, read_bounded(source, SMALL_BYTES_MAX))
    if passphrase is None:
        return
    for source in sorted(layout.keys.glob("*.pem")):
        sealed = keyfile.locked(keyfile.read(source), passphrase, source.name)
        yield f"keys/{source.name}", _put(place / "keys" / source.name, sealed)


def _put(path: Path, raw: bytes) -> str:
    write_atomic(path, raw, mode=0o600)
    return sha256(raw).hexdigest()


def _copy_blobs(
    source: Path, target: Path, wanted: dict[str, int], progress: Report
) -> dict[str, str]:
    """Every container, hashed as it is copied; what is there with its length stays."""
    total, done = sum(wanted.values()), 0
    for digest, length in sorted(wanted.items()):
        kept = target / digest
        if not kept.is_file() or kept.stat().st_size != length:
            _copy(source / digest, kept, digest, "container")
        done += length
        progress("containers", done, total)
    sync_directory(target)
    return {f"blobs/{digest}": digest for digest in wanted}


def _copy(source: Path, target: Path, digest: str, what: str) -> None:
    """A file, whole and with its digest, or not at all.

    Raises:
        StateError: it is missing, or other bytes. SpaceError: no room.
    """
    draft = target.with_name(f".{target.name}.part")
    found = sha256()
    try:
        with source.open("rb") as reader, draft.open("wb") as writer:
            os.fchmod(writer.fileno(), 0o600)
            while piece := reader.read(_PIECE):
                found.update(piece)
                writer.write(piece)
            writer.flush()
            os.fsync(writer.fileno())
        if found.hexdigest() != digest:
            raise StateError(
                f"{what} {source} does not have its digest",
                hint="the medium has changed it; look for another copy",
            )
        draft.replace(target)
    except FileNotFoundError as error:
        raise StateError(f"{what} {source} is missing") from error
    except OSError as error:
        raise SpaceError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _forget_others(place: Path, database: str) -> None:
    """Databases of earlier backups: no manifest names them any more."""
    for old in place.glob("*.db"):
        if old.name != database:
            with suppress(OSError):
                old.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


# ── restore ──────────────────────────────────────────────────────────────────────────
def restore(
    place: Path,
    root: Path,
    clock: Clock,
    chance: Chance,
    *,
    passphrase: str,
    progress: Report = lambda *_: None,
) -> Restored:
    """Make the server's directory ``root`` out of a backup, whole or not at all.

    Everything is compared with its digest, the database is checked by SQLite and leaf
    by leaf, each container it knows must be there. Devices are served newer metadata
    than any they had from then on; the operator token is a new one.

    Raises:
        InvalidConfigError: no backup with keys, or ``root`` exists.
        PassphraseError: the keys do not open. StateError: something in it is not what
        was backed up. SpaceError: no room.
    """
    found = Backup.read(place)
    if not found.keys:
        raise InvalidConfigError(
            f"{place} holds no keys", hint="put them into a copy of it, or back up anew"
        )
    target = root.absolute()
    if target.exists():
        raise InvalidConfigError(
            f"{root} exists already", hint="choose a new directory"
        )
    draft = Layout(target.with_name(f".{target.name}.restore-{os.getpid()}"))
    try:
        _fill(place, found, draft, passphrase, progress)
        restored = _awaken(draft, found, clock, chance)
        draft.root.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise SpaceError(f"{root} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(draft.root, ignore_errors=True)
    return restored


def drill(
    place: Path,
    clock: Clock,
    chance: Chance,
    *,
    passphrase: str,
    within: Path | None = None,
    progress: Report = lambda *_: None,
) -> Restored:
    """Restore into a directory that is thrown away: a backup nobody tried is none.

    Raises:
        as :func:`restore`.
    """
    with tempfile.TemporaryDirectory(prefix="sealift-drill-", dir=within) as desk:
        return restore(
            place,
            Path(desk) / "server",
            clock,
            chance,
            passphrase=passphrase,
            progress=progress,
        )


def _fill(
    place: Path, found: Backup, draft: Layout, passphrase: str, progress: Report
) -> None:
    for directory in (draft.root, draft.keys, draft.blobs, draft.public):
        directory.mkdir(mode=0o755 if directory == draft.public else 0o700)
    total = len(found.files)
    for done, (name, digest) in enumerate(sorted(found.files.items()), start=1):
        source = place / name
        if name.startswith("keys/"):
            raw = _compared(source, digest)
            plain = keyfile.unlocked(raw, passphrase, source.name)
            write_atomic(draft.root / name, plain, mode=0o600)
        elif name == found.database:
            _copy(source, draft.database, digest, "database")
        else:
            _copy(source, draft.root / name, digest, "file")
            if name.startswith("public/"):
                (draft.root / name).chmod(0o644)
        progress("files", done, total)


def _compared(path: Path, digest: str) -> bytes:
    raw = read_bounded(path, SMALL_BYTES_MAX)
    if sha256(raw).hexdigest() != digest:
        raise StateError(f"file {path} does not have its digest")
    return raw


def _awaken(draft: Layout, found: Backup, clock: Clock, chance: Chance) -> Restored:
    """Open what was copied as a server would, look at all of it, note the restore."""
    with closing(_opened(draft.database)) as database:
        _check_database(database, found)
        containers = _containers(database)
    missing = [digest for digest in containers if f"blobs/{digest}" not in found.files]
    if missing:
        raise StateError(f"container {missing[0]} is not in the backup")
    opened = open_directory(draft.root, clock.now())
    means = open_means(opened, clock, chance)
    try:
        token = accounts.rotate_token(means, SYSTEM)
        _note(means, found, clock.now())
        leaves = audit.size(means.store.reader)
    finally:
        means.store.close()
    return Restored(found, token, len(containers), leaves)


def _check_database(database: sqlite3.Connection, found: Backup) -> None:
    (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        raise StateError(f"the database is damaged: {verdict}")
    count = 0
    for body, leaf_hash in database.execute("SELECT body, leaf_hash FROM audit_leaf"):
        if sha256(b"\0" + body).digest() != leaf_hash:
            raise StateError(f"leaf {count + 1} of the audit log was changed")
        count += 1
    if count != found.leaves:
        raise StateError(f"the audit log has {count} leaves, {found.leaves} were saved")


def _note(means: Means, found: Backup, now: datetime) -> None:
    """The Director signs anew for everybody, above what each device tells of (D11)."""
    with recorded(means, SYSTEM) as unit:
        unit.session.metadata.outdate()
        unit.record(
            Kind.SERVER_RESTORED,
            {
                "made_at": found.made_at,
                "leaves": found.leaves,
                "restored_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )


def _leads_out(name: str) -> bool:
    path = Path(name)
    return path.is_absolute() or ".." in path.parts or len(path.parts) > 2
