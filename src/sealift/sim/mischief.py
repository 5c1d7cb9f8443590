"""The villain of the demo: somebody who owns the machine the server runs on.

Has every file of the server, its online keys and its TLS key, and stands at its
address; has none of the vendor's offline keys. What must come of it is in ``plot``.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sealift.core.errors import StateError
from sealift.sim.images import Image
from sealift.sim.processes import Processes
from sealift.sim.stage import Desk, Server

__all__ = ["Files", "copied", "flip", "forge", "forget", "recorded", "replaying"]

Files = dict[str, bytes]
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


def recorded(server: Server, device: str) -> Files:
    """What a server tells a device now, by URL path, signed as it is."""
    with _database(server) as database:
        targets, snapshot, timestamp, versions = database.execute(
            "SELECT targets, snapshot, timestamp, versions FROM director "
            "WHERE device_id = ?",
            [device],
        ).fetchone()
    of_targets, of_snapshot, _ = json.loads(versions)
    return {
        "/director/metadata/timestamp.json": timestamp,
        f"/director/metadata/{of_snapshot}.snapshot.json": snapshot,
        f"/director/metadata/{of_targets}.targets.json": targets,
    }


@contextmanager
def replaying(server: Server, files: Files) -> Iterator[int]:
    """Answer at a port of one's own with recorded files and the server's TLS key."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = files.get(self.path)
            self._answer(b"" if body is None else body, 404 if body is None else 200)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b'{"poll_seconds": 1}', 200)

        def _answer(self, body: bytes, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Leave no trace."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as web:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            server.directory / "public/tls-server.pem",
            server.directory / "keys/tls-server.pem",
        )
        web.socket = context.wrap_socket(web.socket, server_side=True)
        web.daemon_threads = True
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web.server_port
        web.shutdown()


def forget(server: Server) -> None:
    """Make a server forget how far its devices have come, whatever they report."""
    nothing = "UPDATE ecu SET release_counter = 0, installed_sha256 = NULL"
    with _database(server) as database:
        database.execute(nothing)
        database.execute(
            "CREATE TRIGGER amnesia AFTER UPDATE ON ecu WHEN NEW.release_counter > 0 "
            f"BEGIN {nothing} WHERE device_id = NEW.device_id AND id = NEW.id; END"
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
