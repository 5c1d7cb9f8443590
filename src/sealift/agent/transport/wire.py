"""One TLS connection, and a watch on every byte that comes through it.

``http.client`` knows only a timeout per socket operation, which one byte every few
seconds never trips, and reads heads of any length. So it is given a socket whose reads
end in :class:`Watched`, where each wait is measured and each byte is counted.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final

from sealift.agent import life
from sealift.core.errors import (
    FailedTransferError,
    InvalidConfigError,
    KeyUnreadableError,
    SealiftError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import Clock
    from sealift.agent.transport.pace import Pace

NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL: the device's clock may say 1970."""

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 with forward secrecy and authenticated encryption; 1.3 has nothing else."""

HEAD_MAX: Final = 64 * 1024
"""Bytes of the head of an answer."""

_BUFFER: Final = 64 * 1024
_SLICE: Final = 1.0
_CONNECT: Final = 30.0
_SEND: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: whom to believe, and who we are (``None``: nobody)."""

    ca: str
    certificate: str | None = None
    key: str | None = None


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or newer, the pinned CA file and nothing else, our certificate.

    Dates are not compared here, as the clock is believed by nobody; see
    :func:`check_dates`.

    Raises:
        InvalidConfigError: the CA file or the certificate cannot be used.
        KeyUnreadableError: the key cannot be used, or is not that of the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        context.load_verify_locations(cafile=files.ca)
    except (OSError, ValueError) as error:
        raise InvalidConfigError(
            f"the CA file {files.ca} cannot be used",
            hint="it must hold the PEM certificate of the authority of the server",
        ) from error
    if files.certificate is not None:
        _load_identity(context, files.certificate, files.key)
    return context


def _load_identity(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    if not os.access(certificate, os.R_OK):
        raise InvalidConfigError(f"the certificate {certificate} cannot be read")
    try:
        # An empty password: an encrypted key must fail, not ask on a terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise KeyUnreadableError(
            f"the key {key} and the certificate {certificate} cannot be used together",
            hint="both must be PEM, belong together, and the key must not be encrypted",
        ) from error


def check_dates(certificate: dict[str, Any], floor: float) -> None:
    """Refuse a server certificate that ended before ``floor``, in Unix seconds.

    The floor is the least that the time can be, so it proves that a certificate has
    expired; it cannot prove that one is not valid yet.

    Raises:
        FailedTransferError: it has expired.
    """
    ends = certificate.get("notAfter")
    if ends is not None and ssl.cert_time_to_seconds(ends) < floor:
        raise FailedTransferError(
            f"the certificate of the server expired on {ends}",
            hint="renew the certificate of the server",
        )


class Watch:
    """What the bytes of the present answer are held against."""

    def __init__(self) -> None:
        self.pace: Pace | None = None
        self._head_left: int | None = None

    def expect_head(self) -> None:
        """From now on bytes belong to a head."""
        self._head_left = HEAD_MAX + _BUFFER  # a part of the body may come along

    def expect_body(self) -> None:
        """The head is over; its limit no longer holds."""
        self._head_left = None

    def waited(self, seconds: float, count: int) -> None:
        """Account for one read.

        Raises:
            SlowTransferError, FailedTransferError: the answer is too slow, or its head
                does not end.
        """
        if self.pace is not None:
            self.pace.add(seconds, count)
        if self._head_left is not None:
            self._head_left -= count
            if self._head_left < 0:
                raise FailedTransferError("the head of the answer does not end")


class Watched(io.RawIOBase):
    """The reading half of a connection; waits are cut in slices and reported."""

    def __init__(self, sock: ssl.SSLSocket, clock: Clock, watch: Watch) -> None:
        super().__init__()
        self._sock = sock
        self._clock = clock
        self._watch = watch

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """At least one byte, or 0 at the end."""
        while True:
            life.beat()
            began = self._clock.monotonic()
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                self._watch.waited(self._clock.monotonic() - began, 0)
                continue
            self._watch.waited(self._clock.monotonic() - began, count)
            return count


class _Socket:
    """What ``http.client`` needs of a socket. Closing is left to :meth:`drop`."""

    def __init__(self, sock: ssl.SSLSocket, clock: Clock, watch: Watch) -> None:
        self._sock = sock
        self._clock = clock
        self._watch = watch

    def makefile(self, mode: str) -> io.BufferedReader:
        """A reader for one answer."""
        del mode
        return io.BufferedReader(Watched(self._sock, self._clock, self._watch), _BUFFER)

    def sendall(self, data: bytes) -> None:
        """Send, piece by piece, each within the connection time-out."""
        self._sock.settimeout(_CONNECT)
        for at in range(0, len(data), _SEND):
            self._sock.sendall(data[at : at + _SEND])
            life.beat()
        self._sock.settimeout(_SLICE)

    def close(self) -> None:
        """``http.client`` closes while an answer is still being read; we do not."""


class Connection(HTTPConnection):
    """An HTTPS connection that resumes TLS sessions and is watched."""

    def __init__(
        self,
        origin: tuple[str, int],
        context: ssl.SSLContext,
        clock: Clock,
        *,
        floor: Callable[[], float],
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(*origin, timeout=_CONNECT)
        self.origin = origin
        self._tls = context
        self._clock = clock
        self._floor = floor
        self._session = session
        self._socket: ssl.SSLSocket | None = None
        self.watch = Watch()

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session to resume next time; ask after an answer was read (TLS 1.3)."""
        found = self._socket.session if self._socket is not None else None
        return found or self._session

    @property
    def resumed(self) -> bool:
        """Whether this connection resumed an earlier session."""
        return bool(self._socket is not None and self._socket.session_reused)

    def connect(self) -> None:
        """Connect and finish the handshake."""
        plain = _dialled(self.origin)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(_SLICE)
            found = self._tls.wrap_socket(
                plain,
                server_hostname=self.origin[0],
                session=self._session,
                do_handshake_on_connect=False,
            )
        except BaseException:
            plain.close()
            raise
        try:
            self._shake_hands(found)
        except BaseException:
            found.close()
            raise
        self._socket = found
        check_dates(found.getpeercert() or {}, self._floor())
        found.settimeout(_SLICE)
        self.sock = _Socket(found, self._clock, self.watch)

    def _shake_hands(self, sock: ssl.SSLSocket) -> None:
        """In slices, and in one time for all of it, however the peer drips."""
        until = self._clock.monotonic() + _CONNECT
        while True:
            life.beat()
            try:
                sock.do_handshake()
            except TimeoutError:
                if self._clock.monotonic() >= until:
                    raise
            else:
                return

    def drop(self) -> None:
        """Close the connection for good; again is harmless."""
        self.close()
        if self._socket is not None:
            self._session = self.session
            self._socket.close()
            self._socket = None

    def stale(self) -> bool:
        """Whether an idle connection has something to say: nearly always good-bye."""
        if self._socket is None or self.sock is None:
            return True
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (ssl.SSLWantReadError, BlockingIOError):
            self._socket.settimeout(_SLICE)
            return False
        except OSError:
            return True
        return True


def _dialled(origin: tuple[str, int]) -> socket.socket:
    """Connected to the first of its addresses that answers."""
    failed: OSError = FileNotFoundError(errno.ENOENT, "no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        *origin, type=socket.SOCK_STREAM
    ):
        life.beat()
        plain = None
        try:
            plain = socket.socket(family, kind, protocol)
            plain.settimeout(_CONNECT)
            plain.connect(address)
        except OSError as error:
            failed = error
            if plain is not None:
                plain.close()
        else:
            return plain
    raise failed


def translated(error: Exception) -> SealiftError:
    """Our error for one of the socket, of TLS or of ``http.client``."""
    if isinstance(error, SealiftError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return FailedTransferError(
            f"the certificate of the server is not acceptable: {error.verify_message}",
            hint="check the CA file and the host name in the agent's configuration",
        )
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or type(error).__name__
        return FailedTransferError(f"TLS failed: {reason}")
    if isinstance(error, HTTPException):
        return FailedTransferError(f"not a usable answer: {type(error).__name__}")
    if isinstance(error, socket.gaierror):
        return FailedTransferError(f"the server's name is not known: {error.strerror}")
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        return FailedTransferError(f"the server cannot be reached: {reason}")
    return FailedTransferError(f"not a usable answer: {type(error).__name__}")
