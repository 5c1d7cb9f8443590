"""A real TLS server on this machine for tests: honest with files, or as hostile as told.

Certificates are made once per directory. The server runs in threads of the test's own
process; a handler gets each request and the open connection and sends what it likes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealift.agent.transport import TlsFiles

BORN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Pki:
    """A CA with a server, a device, and some certificates that must not pass."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._make("ca")
        self._make("other-ca")
        self._make("server", "ca", ["localhost"])
        self._make("device", "ca")
        self._make("stranger", "other-ca", ["localhost"])
        self._make("wrong-name", "ca", ["elsewhere.example"])
        self._make("expired", "ca", ["localhost"], days=1)

    def path(self, name: str, kind: str = "pem") -> str:
        """The file of a certificate (``pem``) or a key (``key``)."""
        return str(self._directory / f"{name}.{kind}")

    def files(self, *, ca: str = "ca", who: str | None = "device") -> TlsFiles:
        """What a device is configured with."""
        if who is None:
            return TlsFiles(self.path(ca))
        return TlsFiles(self.path(ca), self.path(who), self.path(who, "key"))

    def _make(
        self,
        name: str,
        issuer: str | None = None,
        names: list[str] | None = None,
        days: int = 3650,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._keys[name] = key
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer or name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(BORN)
            .not_valid_after(BORN + dt.timedelta(days=days))
            .add_extension(
                x509.BasicConstraints(ca=issuer is None, path_length=None),
                critical=True,
            )
        )
        if names:
            alt = x509.SubjectAlternativeName([x509.DNSName(found) for found in names])
            builder = builder.add_extension(alt, critical=False)
        found = builder.sign(self._keys[issuer or name], hashes.SHA256())
        pem = serialization.Encoding.PEM
        Path(self.path(name)).write_bytes(found.public_bytes(pem))
        Path(self.path(name, "key")).write_bytes(
            key.private_bytes(
                pem,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: str | None
    resumed: bool

    @property
    def span(self) -> tuple[int, int] | None:
        """The wanted range as start and stop."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2]) + 1) if found else None


Handler = Callable[[Asked, ssl.SSLSocket], None]


def reply(
    conn: ssl.SSLSocket, status: int, body: bytes = b"", **headers: str | int
) -> None:
    """A whole, honest answer; names of headers with ``_`` for ``-``."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    conn.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def raw(text: str, body: bytes = b"", *, close: bool = True) -> Handler:
    """A handler that sends exactly this head and body and hangs up."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        conn.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if close:
            raise ConnectionAbortedError

    return handler


@dataclass
class Files:
    """A handler that serves byte ranges of files, as a good server does."""

    files: dict[str, Path | bytes]
    etag: str = '"one"'
    sent: int = 0

    def __call__(self, asked: Asked, conn: ssl.SSLSocket) -> None:
        found = self.files.get(asked.target)
        if found is None:
            reply(conn, 404)
            return
        length = len(found) if isinstance(found, bytes) else found.stat().st_size
        start, stop = asked.span or (0, length)
        head = [
            f"HTTP/1.1 {206 if asked.span else 200} X",
            f"Content-Length: {stop - start}",
            f"ETag: {self.etag}",
        ]
        if asked.span:
            head.append(f"Content-Range: bytes {start}-{stop - 1}/{length}")
        conn.sendall("\r\n".join([*head, "", ""]).encode())
        with _reader(found) as read:
            while start < stop:
                piece = read(start, min(1 << 20, stop - start))
                conn.sendall(piece)
                start += len(piece)
                self.sent += len(piece)


@contextlib.contextmanager
def _reader(found: Path | bytes) -> Iterator[Callable[[int, int], bytes]]:
    if isinstance(found, bytes):
        yield lambda at, n: found[at : at + n]
        return
    descriptor = os.open(found, os.O_RDONLY)
    try:
        yield lambda at, n: os.pread(descriptor, n, at)
    finally:
        os.close(descriptor)


@dataclass
class TlsServer:
    """Serves ``handler`` on a free port of ``localhost`` while entered."""

    pki: Pki
    handler: Handler
    who: str = "server"
    client: bool = True
    newest: ssl.TLSVersion | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    _open: list[ssl.SSLSocket] = field(default_factory=list)

    def __enter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pki.path(self.who), self.pki.path(self.who, "key"))
        if self.newest is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = self.newest
        if self.client:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(self.pki.path("ca"))
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._listener.getsockname()[1]}"

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self.stopping:
                plain, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(plain,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(10)
        # Head and body are sent apart: the second must not wait for an ACK of the first.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, ValueError), plain:
            conn = self._context.wrap_socket(plain, server_side=True)
            self._open.append(conn)
            self.connections += 1
            with conn:
                while not self.stopping and (asked := self._read(conn)):
                    self.asked.append(asked)
                    self.handler(asked, conn)

    def _read(self, conn: ssl.SSLSocket) -> Asked | None:
        """The next request; ``None`` at the end of the connection."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = conn.recv(65_536)
            if not piece:
                return None
            head += piece
        top, _, body = head.partition(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines)
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += conn.recv(65_536)
        method, target, _ = first.split(" ")
        return Asked(
            method, target, headers, body, _peer(conn), bool(conn.session_reused)
        )


def _peer(conn: ssl.SSLSocket) -> str | None:
    """The common name in the client's certificate, if it showed one."""
    der = conn.getpeercert(binary_form=True)
    if der is None:
        return None
    names = x509.load_der_x509_certificate(der).subject
    return str(names.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
