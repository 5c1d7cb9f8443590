"""Who is calling, how often, and how much they may send.

:func:`peer_identity` is the only place that learns of a client certificate, and
:class:`Guard` stands in front of every route of a face: without a credential no route
is even looked up, so that none can be forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from sealift.core.errors import (
    AuthRequiredError,
    InvalidInputError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
)
from sealift.server.api.problems import send_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = [
    "CERTIFICATE",
    "Endpoint",
    "Guard",
    "Peer",
    "RateLimiter",
    "announced_length",
    "bearer_token",
    "body_pieces",
    "peer_identity",
    "read_body",
]

CERTIFICATE = "sealift.client_certificate"
"""Member of the scope with the client's certificate, DER, put there by ``listen``."""

_IDENTITY_HEADERS = frozenset(
    {
        # Only a terminating proxy may say these, and there is none on this listener.
        b"client-cert",
        b"client-cert-chain",
        b"sealift-client-certificate",
        b"ssl-client-cert",
        b"ssl-client-verify",
        b"x-amzn-mtls-clientcert",
        b"x-arr-clientcert",
        b"x-client-cert",
        b"x-client-certificate",
        b"x-forwarded-client-cert",
        b"x-ssl-cert",
        b"x-ssl-client-cert",
        b"x-ssl-client-dn",
        b"x-ssl-client-verify",
    }
)
BODY_SECONDS = 60
"""A small body must be complete within this time."""

Identify = Callable[["Scope"], str]
"""Whose request this is, or an error; the text is the key of the rate limit."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The certificate a request came under."""

    der: bytes
    sha256: str


def peer_identity(scope: Scope) -> Peer:
    """The client certificate of this connection, from the TLS session and nowhere else.

    Raises:
        AuthRequiredError: there is none. MalformedError: a header claims one.
    """
    refuse_identity_headers(scope)
    der = scope.get(CERTIFICATE)
    if not isinstance(der, bytes) or not der:
        raise AuthRequiredError(
            "this listener needs a client certificate",
            hint="devices show the certificate they were provisioned with",
        )
    return Peer(der, hashlib.sha256(der).hexdigest())


def refuse_identity_headers(scope: Scope) -> None:
    """Refuse a request that brings an identity in a header (E-05).

    Raises:
        MalformedError: it does.
    """
    if any(name in _IDENTITY_HEADERS for name, _ in scope["headers"]):
        raise MalformedError("an identity header is not accepted here")


def bearer_token(scope: Scope) -> str:
    """The token of the ``Authorization`` header.

    Raises:
        AuthRequiredError: there is not exactly one bearer token.
    """
    refuse_identity_headers(scope)
    found = [v for name, v in scope["headers"] if name == b"authorization"]
    scheme, _, token = (found[0] if len(found) == 1 else b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token or len(token) > 512:
        raise AuthRequiredError(
            "this needs the operator token", hint="Authorization: Bearer TOKEN"
        )
    return token.decode("latin-1")


# ── rates ────────────────────────────────────────────────────────────────────────────
@dataclass(slots=True)
class RateLimiter:
    """A bucket per identity that refills at ``per_minute`` (E-14).

    Kept in memory: a restart forgives, and forgetting the oldest of many is harmless.
    """

    per_minute: int
    monotonic: Callable[[], float]
    remembered: int = 100_000
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, identity: str) -> None:
        """Count one request.

        Raises:
            RateLimitedError: the bucket is empty.
        """
        now = self.monotonic()
        left, at = self._buckets.pop(identity, (float(self.per_minute), now))
        left = min(self.per_minute, left + (now - at) * self.per_minute / 60)
        self._buckets[identity] = (max(left - 1, 0.0), now)
        if len(self._buckets) > self.remembered:
            del self._buckets[next(iter(self._buckets))]
        if left < 1:
            raise RateLimitedError("too many requests from this identity")


@dataclass(slots=True)
class Guard:
    """Stands before every route: identify, count, let in; errors become answers.

    ``in_flight_max`` requests may be under way at once; others are asked to come back.
    """

    app: ASGIApp
    identify: Identify
    limiter: RateLimiter
    in_flight_max: int
    in_flight: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        started = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        self.in_flight += 1
        try:
            self._admit(scope)
            await self.app(scope, receive, watched)
        except Exception as error:  # whatever it is, the answer must be one of ours
            if started:
                raise
            # A body nobody reads any more must not keep the connection busy.
            await send_error(send, _ours(error), close=_has_body(scope))
        finally:
            self.in_flight -= 1

    def _admit(self, scope: Scope) -> None:
        try:
            identity = self.identify(scope)
        except AuthRequiredError:
            host, _ = scope.get("client") or ("", 0)
            self.limiter.take(f"unknown {host}")
            raise
        self.limiter.take(identity)
        if self.in_flight > self.in_flight_max:
            raise RateLimitedError("the server is busy; come back a little later")


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _ours(error: Exception) -> Exception:
    if isinstance(error, HTTPException) and error.status_code in {404, 405}:
        return NotFoundError("there is nothing here")
    return error


# ── bodies ───────────────────────────────────────────────────────────────────────────
async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """A request's body, refused by its announced length before a byte is read.

    Raises:
        TooLargeError: more than ``limit`` bytes. InvalidInputError: no sound length.
    """
    announced_length(scope, limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in body_pieces(receive):
                body += piece
                if len(body) > limit:
                    raise TooLargeError(f"more than {limit} bytes")
    except TimeoutError as error:
        raise InvalidInputError("the body came too slowly") from error
    return bytes(body)


def announced_length(scope: Scope, limit: int) -> int | None:
    """The ``Content-Length`` of a request, ``None`` if it says none.

    Raises:
        TooLargeError: above ``limit``. InvalidInputError: not a number.
    """
    found = [v for name, v in scope["headers"] if name == b"content-length"]
    if not found:
        return None
    if len(found) > 1 or not found[0].isdigit() or len(found[0]) > 18:
        raise InvalidInputError("the Content-Length is not a number")
    length = int(found[0])
    if length > limit:
        raise TooLargeError(f"{length} bytes announced, {limit} allowed")
    return length


async def body_pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The body piece by piece.

    Raises:
        InvalidInputError: the client went away in the middle.
    """
    more = True
    while more:
        message: dict[str, object] = await receive()  # type: ignore[assignment]
        if message["type"] == "http.disconnect":
            raise InvalidInputError("the request ended before its body did")
        piece = message.get("body", b"")
        if isinstance(piece, bytes) and piece:
            yield piece
        more = bool(message.get("more_body", False))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A handler as the router takes it: plain ASGI, nothing in between."""

    handler: Callable[[Scope, Receive, Send], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self.handler(scope, receive, send)
