"""The embedded TLS listeners; the only module that knows the ASGI server.

Two listeners in one process: devices must show a certificate of the device CA, the
operator's listener never asks for one. A client certificate is handed to the
application in the scope; released uvicorn does not do that, so this leans on two
methods of its protocol class (hence the narrow version bound in pyproject.toml).
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sealift.core.errors import InvalidConfigError
from sealift.server.api.auth import CERTIFICATE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from pathlib import Path

    from starlette.types import ASGIApp

__all__ = ["Listener", "bind", "prepare_process", "serve", "tls_context"]

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers together."""
HEAD_SECONDS = 20
"""A request's head must be complete within this time."""
KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 10
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL; Python has no name for it."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Listener:
    """One application on one bound socket."""

    app: ASGIApp
    bound: socket.socket
    context: ssl.SSLContext


def tls_context(
    certificate: Path,
    key: Path,
    *,
    client_authority: Path | None = None,
    lenient: bool = False,
) -> ssl.SSLContext:
    """TLS 1.2 or newer with forward secrecy and AEAD only.

    ``client_authority`` makes a client certificate of that CA a condition of the
    handshake. Whether it was revoked is asked on every request, not here: a resumed
    session does not look at revocation again. A ``lenient`` listener asks for one and
    takes none, or one that has expired; what such a one is good for the application
    decides. One of another CA is refused in either case.

    Raises:
        InvalidConfigError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1
    try:
        context.load_cert_chain(certificate, key)
        if client_authority is not None:
            context.verify_mode = ssl.CERT_OPTIONAL if lenient else ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            if lenient:
                context.verify_flags |= _NO_CHECK_TIME
            context.load_verify_locations(client_authority)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfigError(f"the TLS files cannot be used: {error}") from error
    return context


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidConfigError: the address is taken, not ours or not an address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off where the protocol is named, and only there:
    # with it every answer in two parts waits 40 ms for the other side's late ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise InvalidConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="choose another address with --device-listen or --operator-listen",
        ) from error
    bound.setblocking(False)
    return bound


def prepare_process() -> None:
    """As many connections as the system grants, and no core dump with keys in it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def serve(
    *listeners: Listener,
    background: Callable[[], Coroutine[Any, Any, None]],
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop``, or SIGINT or SIGTERM in the main thread; then drain."""
    servers = [_Server(_config(listener)) for listener in listeners]
    tasks = [
        asyncio.create_task(server.serve(sockets=[listener.bound]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    work = asyncio.create_task(background())
    try:
        await _started(servers)
        with _signals(stop):
            ready()
            await stop.wait()
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def _started(servers: list[_Server]) -> None:
    for server in servers:
        await server.up.wait()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: two of them would fight."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to :func:`serve`."""
        yield


class _Protocol(HttpToolsProtocol):
    """HTTP that tells the application who connected, with a bounded head."""

    _certificate: bytes | None = None
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Remember the certificate the handshake verified, also of a resumed one."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert(binary_form=True) if tls else None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which itself would collect a header without end."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES_MAX:
            self._head_done()
            self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """A request begins: put the certificate where only we can."""
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CERTIFICATE] = self._certificate

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._head_done()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _config(listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_context_factory=lambda _config, _default: listener.context,
    )


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Generator[None, None, None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
