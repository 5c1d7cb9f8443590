"""The store: one writer at a time, all or nothing, durable when it returns."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sealift.core.errors import SpaceError, StateError
from sealift.server import jobs
from sealift.server.adapters.migrations import MIGRATIONS
from sealift.server.adapters.sqlite import SqliteStore
from sealift.server.ports import Done, Offer, Session, Token
from tests.unit.server.world import START, World


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "db")


def token(store: SqliteStore) -> str | None:
    found = store.reader.tokens.find("operator")
    return None if found is None else found.sha256


def set_token(session: Session, sha256: str) -> None:
    session.tokens.save(Token("operator", sha256, ("admin",), "server", START))


def test_all_or_nothing(store: SqliteStore) -> None:
    """An error in the body undoes everything; a clean end commits it."""
    with pytest.raises(ZeroDivisionError), store.begin() as session:
        set_token(session, "a")
        raise ZeroDivisionError
    assert token(store) is None
    with store.begin() as session:
        set_token(session, "a")
        assert token(store) is None  # readers see only what is committed
    assert token(store) == "a"
    store.close()


def test_many_writers_queue(store: SqliteStore) -> None:
    """Read-then-write from many threads loses no update and is never locked out."""

    def add() -> None:
        for _ in range(20):
            with store.begin() as session:
                seen = int(getattr(session.tokens.find("operator"), "sha256", 0))
                set_token(session, str(seen + 1))

    threads = [threading.Thread(target=add) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert token(store) == "100"
    store.close()


def test_two_processes_may_write(tmp_path: Path) -> None:
    """A second store on the same file (`token rotate`) waits for its turn."""
    first, second = SqliteStore(tmp_path / "db"), SqliteStore(tmp_path / "db")
    for store in (first, second) * 3:
        with store.begin() as session:
            set_token(session, str(id(store)))
    assert token(first) == str(id(second))
    first.close()
    second.close()


def test_reader_cannot_write(store: SqliteStore) -> None:
    """The reading session refuses to change anything."""
    with pytest.raises(StateError, match="readonly"):
        set_token(store.reader, "a")
    store.close()


def test_commits_are_durable(tmp_path: Path) -> None:
    """The writer waits for the disk; the log is a write-ahead log; keys are checked."""
    store = SqliteStore(tmp_path / "db")
    rows = store._writer.rows
    assert rows("PRAGMA synchronous") == [(2,)]
    assert rows("PRAGMA journal_mode") == [("wal",)]
    assert rows("PRAGMA foreign_keys") == [(1,)]
    store.close()


def test_full_disk_is_said(store: SqliteStore) -> None:
    """No room is ``device.space``, and nothing is half done."""
    pages = store._writer.rows("PRAGMA page_count")[0][0]
    store._writer.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SpaceError), store.begin() as session:
        for number in range(5000):
            session.housekeeping.take_lease(f"job {number}", "me", START, START)
    assert store.reader.audit.size() == 0
    store.close()


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A database of a newer Sealift is not touched."""
    SqliteStore(tmp_path / "db").close()
    other = sqlite3.connect(tmp_path / "db")
    other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    with pytest.raises(StateError, match="schema"):
        SqliteStore(tmp_path / "db")


def test_memory_store() -> None:
    """The same store on memory, for tests and simulations."""
    store = SqliteStore(None)
    with store.begin() as session:
        set_token(session, "a")
    assert token(store) == "a"
    store.close()


def test_lease_is_held_by_one(store: SqliteStore) -> None:
    """A job is taken once; when its holder dies the lease runs out."""
    until = START + timedelta(minutes=5)
    with store.begin() as session:
        desk = session.housekeeping
        assert desk.take_lease("job", "one", START, until)
        assert not desk.take_lease("job", "two", START, until)
        assert desk.take_lease("job", "two", until, until + timedelta(minutes=5))
        desk.finish("job", "one", START)  # too late: it is not one's any more
        assert not desk.take_lease("job", "three", until, until)
        desk.finish("job", "two", until + timedelta(hours=1))
        assert not desk.take_lease("job", "two", until, until)
    store.close()


def test_jobs_run_when_due(world: World) -> None:
    """Each due job runs once, and again after its interval."""
    assert jobs.run_due(world.means, "me") == ["image-refresh", "certificates-retire"]
    assert jobs.run_due(world.means, "me") == []
    world.clock.forward(minutes=11)
    assert jobs.run_due(world.means, "me") == ["image-refresh"]


def _version_one(path: Path) -> None:
    """A database of the first released schema, with a fleet in it."""
    old = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        old.execute(statement)
    old.executescript(_OLD_ROWS)
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()


_STAMP = "2026-11-01T00:00:00Z"
_OLD_ROWS = f"""
INSERT INTO operator_token VALUES ('{"ab" * 32}', '{_STAMP}');
INSERT INTO device VALUES ('dev-0001', 'active', 'kid', '{{}}', '{_STAMP}', 3,
    NULL, NULL, NULL, NULL, '{{}}');
INSERT INTO ecu VALUES ('main', 'dev-0001', 'board', 1, 'i', 'ab', 5, '1.0', 1, NULL);
INSERT INTO release VALUES ('demo-1', 'demo', '1', 1, '[]', '{_STAMP}');
INSERT INTO deployment VALUES ('d-1', 'demo-1', 'running', 'why', '{_STAMP}', 1);
INSERT INTO installation VALUES ('d-1/x', 'd-1', 'dev-0001', 'main', 'demo/i', 'ab',
    'downloading', 1, NULL, '{_STAMP}');
"""


def test_the_first_schema_is_carried_over(tmp_path: Path) -> None:
    """A database of schema 1 opens with every row, and takes what is new."""
    _version_one(tmp_path / "db")
    store = SqliteStore(tmp_path / "db")
    device = store.reader.devices.find("dev-0001")
    assert device is not None
    assert (device.counter, device.abilities, device.decryption_key) == (3, (), None)
    (row,) = store.reader.deployments.installations_on("dev-0001")
    assert (row.state, row.offer, row.done) == ("downloading", None, None)
    deployment = store.reader.deployments.find("d-1")
    assert deployment is not None
    assert (deployment.bytes_max, deployment.delta_wait) == (None, 0)
    with store.begin() as session:
        offered = replace(row, offer=Offer("full", 7), done=Done("full", 8, 1))
        session.deployments.save_installation(offered)
        session.devices.save(replace(device, abilities=("delta/1",)))
    assert store.reader.deployments.installations_on("dev-0001") == [offered]
    assert store.reader.deltas.all() == []
    first = store.reader.tokens.find("operator")
    assert first is not None
    assert (first.sha256, first.roles, first.expires_at) == (
        "ab" * 32,
        ("admin",),
        None,
    )
    store.close()
    store = SqliteStore(tmp_path / "db")  # and again, with nothing to do
    assert store.reader.deployments.installations_on("dev-0001") == [offered]
    store.close()


def test_released_schemas_are_never_edited() -> None:
    """The statements of a released version are those it was released with."""
    digest = hashlib.sha256("\n".join(MIGRATIONS[0]).encode()).hexdigest()
    assert digest == "7943320cf7d80422f8ff772b682660a05c70e72f5960a54adf2ce47741b321d0"
