"""A hostile server with real TLS on a loopback port, and the agent's way to it.

It serves a wire (``sim.network``): the same attackers stand in a simulated network and
here. Pieces that take time take it in seconds of the agent's clock, which may run
faster than ours. What a TLS server may be like is in :class:`Tls`.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives.serialization import Encoding

from sealift.agent.transport import HttpsTransport, TlsFiles
from sealift.core.errors import SealiftError
from sealift.server.adapters import ca
from sealift.sim.network import Request

if TYPE_CHECKING:
    from sealift.sim.attacks.world import Scene
    from sealift.sim.network import Response, Server
    from sealift.sim.world import SimClock

__all__ = ["FastClock", "Loopback", "Tls", "over_tls"]

HOST = "127.0.0.1"
VERSIONS = {"1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1}


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server is less than it must be.

    ``certificate`` is ``good``, ``other-authority``, ``self-signed``, ``wrong-name`` or
    ``expired``; ``version`` the highest it speaks; ``plain`` speaks no TLS at all.
    """

    certificate: str = "good"
    version: str = ""
    plain: bool = False


class FastClock:
    """A clock whose monotonic seconds go by ``speed`` times as fast as ours."""

    def __init__(self, clock: SimClock, speed: float) -> None:
        self._clock = clock
        self._speed = speed

    def now(self) -> datetime:
        """The device's own system clock."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Fast seconds."""
        return time.monotonic() * self._speed

    def sleep(self, seconds: float) -> None:
        """Wait so many fast seconds."""
        time.sleep(seconds / self._speed)

    def boot_id(self) -> str:
        """The device's own."""
        return self._clock.boot_id()


# ── certificates ─────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Files:
    """The authority the device believes, and what the server shows; PEM files."""

    authority: Path
    chain: Path
    key: Path


def make_files(directory: Path, kind: str, now: datetime) -> Files:
    """An authority, and a server certificate of this kind."""
    directory.mkdir()
    key, other = ca.new_key(), ca.new_key()
    believed = ca.make_authority("believed", key, now)
    names = ["elsewhere.invalid"] if kind == "wrong-name" else [HOST]
    then = now - timedelta(days=800) if kind == "expired" else now
    own = ca.new_key()
    if kind == "self-signed":
        shown = ca.make_authority(HOST, own, now)
    elif kind == "other-authority":
        foreign = ca.make_authority("believed", other, now)
        shown = ca.make_server_certificate(names, own, foreign, other, then)
    else:
        shown = ca.make_server_certificate(names, own, believed, key, then)
    found = Files(*(directory / name for name in ("ca.pem", "chain.pem", "key.pem")))
    found.authority.write_bytes(believed.public_bytes(Encoding.PEM))
    found.chain.write_bytes(shown.public_bytes(Encoding.PEM))
    found.key.write_bytes(ca.private_pem(own))
    return found


def _context(files: Files, tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    if tls.version:
        with warnings.catch_warnings():  # that it is deprecated is the point
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = VERSIONS[tls.version]
            context.set_ciphers("ALL:@SECLEVEL=0")
    return context


# ── the server ───────────────────────────────────────────────────────────────────────
class Loopback:
    """A server over a wire, for the length of a ``with`` block."""

    def __init__(
        self, wire: Server, directory: Path, now: datetime, tls: Tls, speed: float
    ) -> None:
        self.files = make_files(directory, tls.certificate, now)
        self._stop = threading.Event()
        self._server = _Listener((HOST, 0), _Handler)
        self._server.loopback = self
        self._server.context = None if tls.plain else _context(self.files, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.wire = wire
        self.speed = speed

    @property
    def url(self) -> str:
        """Its base address."""
        return f"https://{HOST}:{self._server.server_address[1]}"

    def wait(self, seconds: float) -> None:
        """Let fast seconds pass, unless the server is to end."""
        self._stop.wait(seconds / self.speed)

    @property
    def stopping(self) -> bool:
        """Whether it is to end."""
        return self._stop.is_set()

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for every connection to end."""
        self._stop.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Listener(ThreadingHTTPServer):
    """One thread per connection; ``server_close`` waits for all of them."""

    daemon_threads = False
    loopback: Loopback
    context: ssl.SSLContext | None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake, then the requests of one connection; it may break anywhere."""
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.settimeout(30)
            with self.context.wrap_socket(request, server_side=True) as tls:
                super().finish_request(tls, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what happens here all day."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go out in two writes
    server: _Listener

    def do_GET(self) -> None:
        """Answer out of the wire."""
        self._answer(b"")

    def do_POST(self) -> None:
        """Answer out of the wire."""
        self._answer(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        request = Request(
            self.command,
            self.path.lstrip("/"),
            body,
            _span(self.headers.get("range")),
            self.headers.get("if-none-match"),
        )
        try:
            response = self.server.loopback.wire(request)
            self._send(response)
        except (SealiftError, OSError):  # an attacker lets nothing through; or hung up
            self.close_connection = True

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        chunked = response.headers.get("transfer-encoding") == "chunked"
        for piece in response.pieces:
            if self.server.loopback.stopping:
                raise ConnectionAbortedError
            if isinstance(piece, bytes):
                self._write(piece, chunked=chunked)
            else:
                self.server.loopback.wait(piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection |= response.broken

    def _write(self, piece: bytes, *, chunked: bool) -> None:
        if chunked and piece:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        elif piece:
            self.wfile.write(piece)
        self.wfile.flush()


def _span(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    first, _, last = value.removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1


# ── the agent's end ──────────────────────────────────────────────────────────────────
@contextlib.contextmanager
def over_tls(scene: Scene, tls: Tls, speed: float) -> Iterator[None]:
    """Have the device of a scene talk to its wire over real TLS for a while."""
    directory = scene.directory / f"tls-{len(list(scene.directory.glob('tls-*')))}"
    device, clock = scene.device, FastClock(scene.clock, speed)
    before = device.transport
    with Loopback(scene.wire, directory, scene.true_now(), tls, speed) as server:
        transport = HttpsTransport(
            server.url,
            TlsFiles(str(server.files.authority)),
            clock,
            floor=device.built.timestamp,
        )
        device.transport = transport
        try:
            yield
        finally:
            device.transport = before
            transport.close()
