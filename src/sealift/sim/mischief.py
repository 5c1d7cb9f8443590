"""The villain of the demo: somebody who owns the machine the server runs on.

Has every file of the server, its online keys and its TLS key, and stands at its
address; has none of the vendor's offline keys. What must come of it is in ``plot``.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sealift.core.errors import StateError
from sealift.sim.images import Image
from sealift.sim.processes import Processes
from sealift.sim.stage import Desk, Server

__all__ = ["Row", "copied", "flip", "forge", "forget", "recorded", "replay"]

Row = dict[str, Any]
_PATIENCE = 30.0

_FORGOTTEN = (
    "installation",
    "deployment",
    "ordered_container",
    "director",
    "release",
    "container",
    "metadata",
)


def copied(run: Processes, server: Server, name: str) -> Server:
    """A copy of a server's directory, taken while it runs; not started."""
    taken = Server(run, server.directory.with_name(name), name)
    skip = shutil.ignore_patterns("sealift.db*", "lock")
    shutil.copytree(server.directory, taken.directory, ignore=skip)
    target = taken.directory / "sealift.db"
    target.touch(mode=0o600)
    with (
        closing(sqlite3.connect(server.directory / "sealift.db")) as source,
        closing(sqlite3.connect(target)) as sink,
    ):
        source.backup(sink)
    shutil.copy(server.token, taken.token)
    return taken


def forge(run: Processes, server: Server, image: Image) -> tuple[Server, str]:
    """Re-sign everything with keys of one's own and order it to the same devices.

    A whole vendor is set up: own offline keys, own online keys, own release; only the
    devices, the TLS key and the address are those of ``server``. The server, running,
    and the id of the forged release.
    """
    draft = Server(run, server.directory.with_name("forger-keys"), "forger-keys")
    draft.init()
    forger = copied(run, server, "forger")
    for repository in ("director", "image"):
        for key in draft.directory.glob(f"keys/{repository}-*.pem"):
            shutil.copy(key, forger.directory / "keys" / key.name)
    shutil.copy(draft.online_keys, forger.online_keys)
    _empty(forger)
    forger.start()
    desk = Desk(run, server.directory.with_name("forger-desk"))
    desk.init(forger.online_keys)
    desk.publish_keys(forger)
    packed = desk.pack(image, counter=99)
    desk.sign(packed)
    desk.publish(packed, forger)
    return forger, packed.id


def recorded(server: Server, device: str) -> Row:
    """The Director metadata a server has for a device, as its database holds it."""
    with _database(server) as database:
        database.row_factory = sqlite3.Row
        found = database.execute("SELECT * FROM director WHERE device_id = ?", [device])
        return dict(found.fetchone())


def replay(server: Server, row: Row) -> None:
    """Put recorded metadata back, signed as it was, in place of the newest."""
    members = ", ".join(f"{name} = :{name}" for name in row)
    statement = f"UPDATE director SET {members} WHERE device_id = :device_id"  # noqa: S608 -- column names of our own schema
    with _database(server) as database:
        database.execute(statement, row)


def forget(server: Server, device: str) -> None:
    """Make a server forget how far a device has come, so that it orders anything."""
    with _database(server) as database:
        database.execute(
            "UPDATE ecu SET release_counter = 0, installed_sha256 = NULL "
            "WHERE device_id = ?",
            [device],
        )


def flip(path: Path) -> None:
    """Change one byte in the middle of a file; the same again undoes it."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        at = file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    path.chmod(mode)


@contextmanager
def _database(server: Server) -> Iterator[sqlite3.Connection]:
    """A server's database, to be written as nobody should."""
    place = server.directory / "sealift.db"
    try:
        with closing(sqlite3.connect(place, timeout=_PATIENCE)) as database:
            yield database
            database.commit()
    except sqlite3.Error as error:
        raise StateError(f"{place}: {error}") from error


def _empty(server: Server) -> None:
    """Leave a server its devices and nothing else; the guards go first."""
    with _database(server) as database:
        found = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        )
        for (name,) in found.fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        for table in _FORGOTTEN:
            database.execute(f"DELETE FROM {table}")  # noqa: S608 -- names of ours
