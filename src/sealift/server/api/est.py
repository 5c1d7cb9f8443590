"""Enrolment over Secure Transport (RFC 7030, RFC 8951): how devices renew.

Served on two listeners. On the device listener a device renews like it does everything
else. The enrolment listener asks for a client certificate and takes none as well, and
an expired one: there the authority's certificates are for everybody, and a device that
slept past its certificate comes back.

Bodies are base64, and are read liberally; what is sent is one line, because there are
clients that take no other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.routing import Route, Router

from sealift.core.audit import Actor, ActorType
from sealift.core.errors import InvalidInputError, NotFoundError
from sealift.server.api.auth import (
    CERTIFICATE,
    Endpoint,
    Guard,
    peer_identity,
    read_body,
    refuse_identity_headers,
)
from sealift.server.services import identity

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from sealift.server.api.auth import RateLimiter
    from sealift.server.ports import Means

__all__ = ["PREFIX", "EstFace"]

PREFIX = "/.well-known/est"
BODY_BYTES = 16 * 1024
_CERTIFICATES = b"application/pkcs7-mime; smime-type=certs-only"
_BASE64 = (b"content-transfer-encoding", b"base64")
_NO_STORE = (b"cache-control", b"no-store")


@dataclass(frozen=True, slots=True)
class EstFace:
    """The application below :data:`PREFIX`. ``write`` runs a use case on the writer."""

    means: Means
    write: Callable[..., Awaitable[Any]]

    def app(self, limiter: RateLimiter, in_flight_max: int) -> ASGIApp:
        """Every route behind the guard."""
        return Guard(self.router(), self.identify, limiter, in_flight_max)

    def router(self) -> Router:
        """The routes; ``serverkeygen`` and ``fullcmc`` are none of them."""
        routes = (
            ("GET", "/cacerts", self.authorities),
            ("GET", "/csrattrs", self.attributes),
            ("POST", "/simplereenroll", self.renew),
        )
        return Router(
            [
                Route(PREFIX + path, Endpoint(do), methods=[verb])
                for verb, path, do in routes
            ],
            redirect_slashes=False,
            default=Endpoint(_nothing),
        )

    def identify(self, scope: Scope) -> str:
        """Whose requests are counted together: a certificate's, else an address's.

        Raises:
            MalformedError: a header claims an identity.
        """
        refuse_identity_headers(scope)
        scope["app"] = self  # a wrong method then raises instead of answering in text
        if scope.get(CERTIFICATE):
            return f"certificate {peer_identity(scope).sha256}"
        host, _ = scope.get("client") or ("", 0)
        return f"unknown {host}"

    async def authorities(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """``/cacerts``: who signs devices' certificates. For everybody."""
        await _send_certificates(send, self.means.authority.chain())

    async def attributes(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """``/csrattrs``: no attribute is asked for."""
        await _send(send, 204, b"", [])

    async def renew(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``/simplereenroll``: a certificate for the bearer of one."""
        peer = peer_identity(scope)
        caller = identity.caller_of(self.means.store.reader, peer.sha256)
        csr = _decoded(await read_body(scope, receive, BODY_BYTES))
        actor = Actor(ActorType.DEVICE, caller.device_id)
        found = await self.write(identity.renew, self.means, actor, peer.sha256, csr)
        await _send_certificates(send, self.means.authority.bundled(found.pem))


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFoundError("there is nothing here")


def _decoded(body: bytes) -> bytes:
    """A request in base64, with or without line breaks and PEM lines.

    Raises:
        InvalidInputError: it is not.
    """
    kept = b"".join(line for line in body.splitlines() if b"-----" not in line)
    try:
        found = base64.b64decode(b"".join(kept.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("the body is not base64") from error
    if not found:
        raise InvalidInputError("the body is empty", hint="PKCS #10 in base64")
    return found


async def _send_certificates(send: Send, found: bytes) -> None:
    headers = [(b"content-type", _CERTIFICATES), _BASE64]
    await _send(send, 200, base64.b64encode(found), headers)


async def _send(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    length = [(b"content-length", str(len(body)).encode())] if status != 204 else []
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, *length, _NO_STORE],
        }
    )
    await send({"type": "http.response.body", "body": body})
