"""The server as devices and operators meet it: real processes, real TLS, real kills."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sealift.core.errors import AuthRequiredError, ConflictError, InvalidInputError
from sealift.server.adapters import ca
from sealift.server.app import SystemClock
from tests.integration.server_process import (
    Caller,
    RunningServer,
    code_of,
    made,
    sealift,
    without_roots_power,
)
from tests.unit.server.test_reports import Voice
from tests.unit.server.world import START, TestDevice, container

POLL = "/director/metadata/timestamp.json"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[RunningServer]:
    """A running server with both roots published, shared by the tests of this file."""
    running = made(here / "srv")
    running.start()
    running.publish_roots()
    yield running
    status, said = running.stop()
    assert (status, said) == (0, "")


@pytest.fixture(scope="module")
def caller(server: RunningServer, here: Path) -> Caller:
    return server.device(here, "dev-0001")


# ── who gets in ──────────────────────────────────────────────────────────────────────
def self_signed(here: Path, authority: bool) -> tuple[Path, Path]:
    """A client certificate of another CA, or of none."""
    name = "other" if authority else "alone"
    key = ca.new_key()
    if authority:
        issuer = ca.new_key()
        device = TestDevice("dev-0001", {"e": "h"}, tls_key=key)
        root = ca.make_authority("other", issuer, START)
        pem = ca.DeviceAuthority(root, issuer).issue("dev-0001", device.csr, START).pem
    else:
        made = ca.make_authority("dev-0001", key, START)
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
    (here / f"{name}.pem").write_text(pem)
    (here / f"{name}.key").write_bytes(ca.private_pem(key))
    return here / f"{name}.pem", here / f"{name}.key"


@pytest.mark.parametrize("who", ["nobody", "another CA", "self-signed"])
def test_E05_handshake_needs_our_certificate(
    server: RunningServer, caller: Caller, here: Path, who: str
) -> None:
    """Without a certificate of the device CA no request is read."""
    pair: tuple[Path | None, Path | None] = (None, None)
    if who != "nobody":
        pair = self_signed(here, who == "another CA")
    stranger = Caller(server, caller.device, *pair)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        stranger.ask(POLL)


@pytest.mark.parametrize(
    ("sentence", "days"), [("expired", -200), ("not yet valid", 3)]
)
def test_E04_certificate_out_of_its_time(
    server: RunningServer, caller: Caller, here: Path, sentence: str, days: int
) -> None:
    """A certificate of our CA that has expired, or is from the future, gets nothing."""
    late = issued_by_hand(server, here, timedelta(days=days))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        late.ask(POLL)


def test_E04_certificate_we_never_gave_out(
    server: RunningServer, caller: Caller, here: Path
) -> None:
    """Good by its signature, unknown to the database: a stolen CA key is not enough."""
    answer, body = issued_by_hand(server, here, timedelta()).ask(POLL)
    assert (answer.status, code_of(body)) == (401, "auth.required")


def issued_by_hand(server: RunningServer, here: Path, ago: timedelta) -> Caller:
    """A device's certificate made with the server's CA key, behind its back."""
    authority = ca.DeviceAuthority(
        ca.read_certificate((server.directory / "public/device-ca.pem").read_bytes()),
        ca.read_key((server.directory / "keys/device-ca.pem").read_bytes()),
    )
    device = TestDevice("dev-0001", {"e": "h"})
    now = SystemClock().now() + ago
    pem = authority.issue("dev-0001", device.csr, now).pem
    (here / "hand.pem").write_text(pem)
    (here / "hand.key").write_bytes(ca.private_pem(device.tls_key))
    return Caller(server, device, here / "hand.pem", here / "hand.key")


def test_E05_plain_http_gets_nothing(server: RunningServer) -> None:
    """The port does not speak without TLS."""
    with socket.create_connection(("localhost", server.port("device"))) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert b"HTTP/" not in plain.recv(1000)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(caller: Caller) -> None:
    """Nothing below TLS 1.2, and no cipher without forward secrecy."""
    old = caller.context()
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    weak = caller.context()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA:AES256-GCM-SHA384")
    for context in (old, weak):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            caller.ask(POLL, connection=caller.connection(context))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_identity_of_full_and_resumed_sessions(
    caller: Caller, version: ssl.TLSVersion
) -> None:
    """A resumed session is the same device as the full one before it."""
    context = caller.context()
    context.maximum_version = context.minimum_version = version
    first = caller.connection(context)
    answer, body = caller.ask(POLL, connection=first)
    assert answer.status == 200
    assert json.loads(body)["signed"]["device_id"] == "dev-0001"
    assert isinstance(first.sock, ssl.SSLSocket)
    session = first.sock.session
    first.close()
    raw = socket.create_connection(("localhost", caller.server.port("device")))
    with context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
        assert tls.session_reused
        tls.sendall(
            b"GET "
            + POLL.encode()
            + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        found = b""
        while piece := tls.recv(65536):
            found += piece
    assert b'"device_id":"dev-0001"' in found


@pytest.mark.parametrize(
    "header", ["X-SSL-Client-Cert", "Client-Cert", "X-Forwarded-Client-Cert"]
)
def test_E05_spoofed_identity_header(
    server: RunningServer, caller: Caller, header: str
) -> None:
    """A header that claims an identity is refused on both listeners."""
    answer, body = caller.ask(POLL, headers={header: "anything"})
    assert (answer.status, code_of(body)) == (400, "format.malformed")


def test_E03_revoked_device_is_refused_on_its_open_connection(
    server: RunningServer, here: Path
) -> None:
    """Revocation meets the very next request, also without a new handshake."""
    device = server.device(here, "dev-revoked")
    connection = device.connection()
    assert device.ask(POLL, connection=connection)[0].status == 200
    with server.operator() as operator:
        operator.revoke("dev-revoked", "stolen")
    for path, method in [
        (POLL, "GET"),
        ("/director/metadata/1.root.json", "GET"),
        ("/image/metadata/timestamp.json", "GET"),
        ("/director/manifest", "POST"),
        ("/nowhere", "GET"),
    ]:
        answer, body = device.ask(path, method, connection=connection)
        assert (answer.status, code_of(body)) == (403, "identity.revoked")
    connection.close()


@pytest.mark.parametrize("token", ["", "x", "slt_" + "A" * 43, "\xff" * 20])
def test_wrong_token(server: RunningServer, token: str) -> None:
    """A wrong token is 401 on every path, known or not."""
    wrong = RunningServer(server.directory, token, server.vendor, urls=server.urls)
    context = ssl.create_default_context(cafile=server.ca)
    from http.client import HTTPSConnection

    for path in ("/api/v1/status", "/nowhere", "/"):
        connection = HTTPSConnection(
            "localhost", wrong.port("operator"), context=context
        )
        connection.putrequest("GET", path)
        connection.putheader("Authorization", b"Bearer " + token.encode("latin-1"))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, code_of(answer.read())) == (401, "auth.required")
        connection.close()


# ── polling and fetching ─────────────────────────────────────────────────────────────
def test_poll_is_304_while_nothing_is_new(caller: Caller) -> None:
    """The entity tag comes back as 304 with the interval, and without a body."""
    answer, _ = caller.ask(POLL)
    etag = answer.headers["ETag"]
    again, body = caller.ask(POLL, headers={"If-None-Match": etag})
    assert (again.status, body) == (304, b"")
    assert again.headers["Sealift-Poll-Seconds"] == "300"
    assert again.headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/director/metadata/2.root.json",
        "/director/metadata/0.root.json",
        "/director/metadata/01.root.json",
        "/director/metadata/9.targets.json",
        "/director/metadata/%2e%2e%2fsealift.db",
        "/image/metadata/1.%2e%2e%2fx.json",
        "/image/metadata/1.timestamp.json",
        "/director/targets/../../keys/tls-ca.pem",
        "/director/targets/" + "0" * 64 + ".x",
        "/director/targets/" + "0" * 64 + "./../x",
        "/api/v1/status",
        "/",
        "//",
    ],
)
def test_F12_nothing_else_is_served(caller: Caller, path: str) -> None:
    """Unknown, malformed and climbing paths are not found, all alike."""
    answer, body = caller.ask(path)
    assert (answer.status, code_of(body)) == (404, "input.not_found")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_whole_way_of_a_release(server: RunningServer, here: Path) -> None:
    """Publish, deploy, poll, fetch in ranges, report: the installation succeeds."""
    one, other = (server.device(here, f"dev-way-{n}") for n in (1, 2))
    facts = server.release("1.0.0", 1, here)
    _, bytes_of_it = container("1.0.0")
    with server.operator() as operator:
        made = operator.create_deployment("demo-board-1.0.0", ["dev-way-1"])
    deployment = made["deployment"]["id"]
    place = f"/director/targets/{facts.sha256.hex()}.{facts.name}"
    assert one.ask(place)[0].status == 404  # not ordered before it was issued
    one.ask(POLL)
    other.ask(POLL)
    # E-02: only the device it is ordered for
    theirs, unknown = other.ask(place), other.ask(place.replace("1.0.0", "9.9.9"))
    assert theirs[0].status == unknown[0].status == 404
    assert theirs[1] == unknown[1]
    whole, body = one.ask(place)
    assert (whole.status, body) == (200, bytes_of_it)
    etag = whole.headers["ETag"]
    part, body = one.ask(place, headers={"Range": "bytes=7-106", "If-Range": etag})
    assert (part.status, body) == (206, bytes_of_it[7:107])
    assert part.headers["Content-Range"] == f"bytes 7-106/{len(bytes_of_it)}"
    changed, body = one.ask(
        place, headers={"Range": "bytes=7-106", "If-Range": '"old"'}
    )
    assert (changed.status, body) == (200, bytes_of_it)
    beyond, body = one.ask(place, headers={"Range": f"bytes={len(bytes_of_it)}-"})
    assert (beyond.status, body) == (416, b"")
    assert beyond.headers["Content-Range"] == f"bytes */{len(bytes_of_it)}"
    from tests.unit.server.world import artifact

    voice = Voice(one.device, runs=artifact("1.0.0"))
    report = voice.report()
    answer, body = one.ask("/director/manifest", "POST", report)
    assert (answer.status, json.loads(body)) == (200, {"poll_seconds": 300})
    again, body = one.ask("/director/manifest", "POST", report)
    assert (again.status, code_of(body)) == (409, "report.replay")
    forged, body = other.ask("/director/manifest", "POST", report)
    assert (forged.status, code_of(body)) == (422, "report.invalid")
    with server.operator() as operator:
        found = operator.deployment(deployment)
        assert found["deployment"]["state"] == "completed"
        assert [i["state"] for i in found["installations"]] == ["succeeded"]
        device = operator.device("dev-way-1")["device"]
        assert device["ecus"][0]["installed"]["version"] == "1.0.0"
        assert device["last_seen"] is not None
    one.ask(POLL)
    assert one.ask(place)[0].status == 404  # done: no order, no bytes


# ── bad input ────────────────────────────────────────────────────────────────────────
def test_body_above_the_cap_is_refused_unread(caller: Caller) -> None:
    """An announced length above the cap is 413 before a byte of it is sent."""
    connection = caller.connection()
    connection.putrequest("POST", "/director/manifest")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, code_of(answer.read())) == (413, "input.too_large")
    connection.close()


def test_endless_chunks_are_cut(caller: Caller) -> None:
    """A body that does not say its length is cut at the cap."""
    connection = caller.connection()
    connection.timeout = 20

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    with pytest.raises((ssl.SSLError, OSError)):
        connection.request(
            "POST",
            "/director/manifest",
            body=itertools.islice(endless(), 10_000),
            headers={"Transfer-Encoding": "chunked"},
            encode_chunked=True,
        )
        pytest.fail("the server took an endless body")
    connection.close()


def test_endless_header_is_cut(caller: Caller) -> None:
    """A header without end is cut at 64 KiB."""
    context = caller.context()
    raw = socket.create_connection(("localhost", caller.server.port("device")))
    with context.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        tls.settimeout(20)
        with pytest.raises((ssl.SSLError, OSError)):
            for _ in range(1000):
                tls.sendall(b"x" * 65536)
        raw.close()


@pytest.mark.parametrize(
    ("sentence", "path", "body", "status"),
    [
        ("an unknown member", "/devices", {"device_id": "d", "admin": True}, 422),
        ("a wrong type", "/deployments", {"release": 7}, 422),
        ("neither devices nor all", "/deployments", {"release": "x"}, 422),
        ("both", "/deployments", {"release": "x", "all": True, "devices": ["d"]}, 422),
        ("an unknown release", "/deployments", {"release": "x", "all": True}, 404),
        ("not an object", "/releases", [], 422),
        ("an unknown repository", "/metadata/other/root", {}, 404),
    ],
)
def test_bad_requests(
    server: RunningServer, sentence: str, path: str, body: object, status: int
) -> None:
    """F-07: refused with a code, nothing changed."""
    from sealift.core.errors import SealiftError

    with server.operator() as operator:
        before = len(operator.audit(limit=1000))
        with pytest.raises(SealiftError) as found:
            operator.session.json("POST", "/api/v1" + path, body=body)
        assert (
            found.value.code == {422: "input.invalid", 404: "input.not_found"}[status]
        )
        assert len(operator.audit(limit=1000)) == before


def test_F11_wrong_upload_leaves_nothing(server: RunningServer, here: Path) -> None:
    """Other bytes than announced: refused, no file, no row."""
    facts, body = container("7.7.7")
    path = here / "wrong.full"
    path.write_bytes(b"z" * len(body))
    with server.operator() as operator, pytest.raises(InvalidInputError):
        operator.upload_container(facts, path)
    blobs = server.directory / "blobs"
    assert facts.sha256.hex() not in {found.name for found in blobs.iterdir()}
    assert not list(blobs.glob(".incoming*"))


def test_F12_other_bytes_under_a_published_name(
    server: RunningServer, here: Path
) -> None:
    """A published container name keeps its bytes."""
    facts, body = container("5.0.0")
    path = here / facts.name
    path.write_bytes(body)
    from dataclasses import replace
    from hashlib import sha256

    with server.operator() as operator:
        operator.upload_container(facts, path)
        operator.upload_container(facts, path)  # the same again is no error
        path.write_bytes(b"other" + body)
        other = replace(
            facts,
            length=len(body) + 5,
            sha256=sha256(b"other" + body).digest(),
        )
        with pytest.raises(ConflictError):
            operator.upload_container(other, path)


# ── many at once ─────────────────────────────────────────────────────────────────────
def test_polls_go_on_while_others_write(server: RunningServer, here: Path) -> None:
    """Thirty devices poll at once while an operator enrols: nobody is refused."""
    callers = [server.device(here, f"dev-many-{n}") for n in range(10)]
    statuses: list[int] = []

    def poll(caller: Caller) -> None:
        connection = caller.connection()
        statuses.extend(
            caller.ask(POLL, connection=connection)[0].status for _ in range(5)
        )
        connection.close()

    threads = [threading.Thread(target=poll, args=(c,)) for c in callers]
    for thread in threads:
        thread.start()
    for n in range(5):
        server.device(here, f"dev-late-{n}")
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50


# ── the program ──────────────────────────────────────────────────────────────────────
def test_second_server_on_one_directory(server: RunningServer) -> None:
    """Two processes on one directory would be two truths: the second is refused."""
    done = sealift(
        "server", "run", server.directory, "--operator-listen", "127.0.0.1:0"
    )
    assert done.returncode == 5
    assert "[device.busy]" in done.stderr
    assert "Traceback" not in done.stderr


def test_token_rotation_ends_the_old_token(tmp_path: Path) -> None:
    """After a rotation only the new token is let in, at once, in the running server."""
    running = made(tmp_path / "srv")
    running.start()
    with running.operator() as operator:
        operator.status()
        done = sealift("server", "token", "rotate", running.directory, "--json")
        fresh = json.loads(done.stdout)["operator_token"]
        with pytest.raises(AuthRequiredError):
            operator.status()
    running.token = fresh
    with running.operator() as operator:
        operator.status()
    assert running.stop()[0] == 0
    everything = b"".join(
        p.read_bytes() for p in running.directory.rglob("*") if p.is_file()
    )
    assert fresh.encode() not in everything  # only its digest is kept


def test_sigkill_at_any_time(tmp_path: Path) -> None:
    """Killed again and again while it writes: what was acknowledged is there, whole."""
    running = made(tmp_path / "srv")
    acknowledged: set[str] = set()
    for turn in range(4):
        running.start()
        if not turn:
            running.publish_roots()
        assert running.process is not None
        timer = threading.Timer(0.05 + 0.1 * turn, running.process.kill)
        timer.start()
        with pytest.raises(Exception):  # noqa: B017 - the connection dies somehow
            for number in range(500):
                name = f"dev-{turn}-{number}"
                running.device(tmp_path, name)
                acknowledged.add(name)
        running.process.communicate(timeout=20)
    with sqlite3.connect(running.directory / "sealift.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        devices = {row[0] for row in database.execute("SELECT id FROM device")}
        owners = {
            row[0] for row in database.execute("SELECT device_id FROM certificate")
        }
        leaves = [
            json.loads(row[0])["refs"][0]["id"]
            for row in database.execute(
                "SELECT body FROM audit_leaf WHERE kind = 'device.enrolled'"
            )
        ]
    database.close()
    assert acknowledged <= devices
    assert devices == owners == set(leaves)
    assert len(leaves) == len(devices)
    running.start()
    with running.operator() as operator:
        assert {device["id"] for device in operator.devices()} == devices
    assert running.stop()[0] == 0


# ── a directory in a bad state ───────────────────────────────────────────────────────
def spoil(directory: Path, how: str) -> None:
    key = directory / "keys" / "director-targets.pem"
    match how:
        case "keys open to others":
            (directory / "keys").chmod(0o755)
        case "a key open to others":
            key.chmod(0o644)
        case "an empty key":
            key.write_bytes(b"")
        case "a missing key":
            key.unlink()
        case "one key for two roles":
            key.write_bytes((directory / "keys" / "image-snapshot.pem").read_bytes())
        case "a known key":
            from cryptography.hazmat.primitives.asymmetric import ed25519

            from sealift.repo.keyfile import seal

            key.write_bytes(
                seal(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)), None)
            )
        case "an open database":
            (directory / "sealift.db").chmod(0o640)
        case "not a database":
            (directory / "sealift.db").write_bytes(b"x" * 8192)
        case "a newer database":
            with sqlite3.connect(directory / "sealift.db") as database:
                database.execute("PRAGMA user_version = 99")
            database.close()
        case "no token":
            with sqlite3.connect(directory / "sealift.db") as database:
                database.execute("DELETE FROM api_token")
            database.close()
        case "the token everybody tries first":
            with sqlite3.connect(directory / "sealift.db") as database:
                digest = (
                    "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"
                )
                database.execute("UPDATE api_token SET sha256 = ?", (digest,))
            database.close()
        case "settings that are not TOML":
            (directory / "server.toml").write_text("poll_seconds = ")
        case "a setting nobody knows":
            with (directory / "server.toml").open("a") as file:
                file.write("debug = true\n")
        case "another server's authority key":
            other = ca.new_key()
            (directory / "keys" / "tls-server.pem").write_bytes(ca.private_pem(other))
        case _:
            raise AssertionError(how)


@pytest.fixture(scope="module")
def template(here: Path) -> Path:
    """A server directory to spoil copies of; it has run once, as most have."""
    made(here / "template")
    (here / "template" / "lock").touch()
    return here / "template"


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("keys open to others", 2, "config.invalid"),
        ("a key open to others", 8, "key.unreadable"),
        ("an empty key", 8, "key.unreadable"),
        ("a missing key", 8, "key.unreadable"),
        ("one key for two roles", 6, "policy.refused"),
        ("a known key", 6, "policy.refused"),
        ("an open database", 2, "config.invalid"),
        ("not a database", 5, "device.state"),
        ("a newer database", 5, "device.state"),
        ("no token", 2, "config.invalid"),
        ("the token everybody tries first", 2, "config.invalid"),
        ("settings that are not TOML", 2, "config.invalid"),
        ("a setting nobody knows", 2, "config.invalid"),
        ("another server's authority key", 2, "config.invalid"),
    ],
)
def test_F13_bad_directory_does_not_start(
    template: Path, tmp_path: Path, how: str, status: int, code: str
) -> None:
    """The server refuses to start, says why with a code, and shows no traceback."""
    import shutil

    directory = tmp_path / "srv"
    shutil.copytree(template, directory)
    spoil(directory, how)
    listen = [
        word
        for name in ("device", "operator", "enrol")
        for word in (f"--{name}-listen", "127.0.0.1:0")
    ]
    done = sealift("server", "run", directory, *listen)
    assert (done.returncode, f"[{code}]" in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_read_only_directory(template: Path, tmp_path: Path) -> None:
    """Where nothing can be written the server does not start."""
    import shutil

    directory = tmp_path / "srv"
    shutil.copytree(template, directory)
    directory.chmod(0o500)
    before = without_roots_power()
    done = sealift("server", "run", directory, "--json", before=before)
    directory.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "config.invalid"


def test_init_touches_nothing_that_exists(template: Path, tmp_path: Path) -> None:
    """A second init, and one without room above it, fail and leave no residue."""
    before = sorted(p.name for p in template.parent.iterdir())
    done = sealift("server", "init", template)
    assert (done.returncode, "[config.invalid]" in done.stderr) == (2, True)
    assert sorted(p.name for p in template.parent.iterdir()) == before
    done = sealift("server", "init", tmp_path / "no" / "where")
    assert (done.returncode, "[config.invalid]" in done.stderr) == (2, True)


def test_port_that_is_taken(server: RunningServer, template: Path) -> None:
    """A taken port is a message, not a traceback."""
    listen = f"127.0.0.1:{server.port('operator')}"
    done = sealift("server", "run", template, "--operator-listen", listen)
    assert (done.returncode, "[config.invalid]" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
