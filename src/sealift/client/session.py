"""One server, one credential: requests, retries, and errors that are ours.

Only the configured CA is believed, redirects are not followed, proxies of the
environment are not used. Every answer is bounded before it is read, and whatever goes
wrong leaves as an error of ``core.errors``: a problem document as the class of its
code, everything else as ``transport.failed``.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from sealift.core import errors
from sealift.core.canonical import parse
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    InvalidConfigError,
    LimitError,
    SealiftError,
)

__all__ = ["Profile", "Session", "connect", "parsed"]

ANSWER_BYTES_MAX = 16 * 1024 * 1024
TRIES = 4
PAUSE_SECONDS_MAX = 30
_SAFE = frozenset({"GET", "PUT"})
_BUSY = frozenset({429, 502, 503, 504})
_CONNECT = (httpx2.ConnectError, httpx2.ConnectTimeout)

Body = Callable[[], Iterator[bytes]]
"""Makes the body anew for each try."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a server is and how it knows us; ``url`` is of the operator's listener."""

    url: str
    ca: Path
    token: str = field(repr=False)


@contextmanager
def connect(profile: Profile) -> Iterator[Session]:
    """A session, closed at the end.

    Raises:
        InvalidConfigError: the address is not ``https://``, or the CA file is not one.
    """
    if not profile.url.startswith("https://"):
        raise InvalidConfigError(
            f"{profile.url!r} is not an https:// address",
            hint="give the operator listener, e.g. https://localhost:8444",
        )
    with httpx2.Client(
        base_url=profile.url.rstrip("/"),
        verify=_context(profile.ca),
        headers={"authorization": f"Bearer {profile.token}"},
        timeout=httpx2.Timeout(60, connect=10),
        follow_redirects=False,
        trust_env=False,
    ) as http:
        yield Session(http, profile.ca)


def _context(ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfigError(
            f"{ca} cannot be used as the server's CA: {error}",
            hint="it is public/tls-ca.pem of the server's directory",
        ) from error
    return context


@dataclass(frozen=True, slots=True)
class Session:
    """Requests to one server that must come from ``ca``.

    ``pause`` waits between tries, seconds.
    """

    http: httpx2.Client
    ca: Path
    pause: Callable[[float], None] = time.sleep

    def json(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Any:
        """Send ``body`` as JSON, get JSON.

        Raises:
            SealiftError: the server refused, by its code. FailedTransferError: no
                usable answer. LimitError: more bytes than any answer has.
        """
        content = None if body is None else json.dumps(body).encode()
        return parsed(self.raw(method, path, content=content, query=query))

    def raw(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Body | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> bytes:
        """Send bytes, or what ``content`` makes, and get bytes; raises as :meth:`json`.

        GET and PUT are tried again when the network or the server falters; anything
        else only if the connection did not even come about.
        """
        for left in reversed(range(TRIES)):
            try:
                return self._once(method, path, content, headers, query)
            except _Again as again:
                if not left or not (method in _SAFE or again.unsent):
                    raise again.error from again.__cause__
                self.pause(min(again.seconds, PAUSE_SECONDS_MAX))
        raise AssertionError("the loop above returns or raises")

    def _once(
        self,
        method: str,
        path: str,
        content: bytes | Body | None,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str | int] | None,
    ) -> bytes:
        made = content() if callable(content) else content
        try:
            with self.http.stream(
                method, path, content=made, headers=headers, params=query
            ) as answer:
                body = _bounded(answer)
        except httpx2.HTTPError as error:
            unsent = isinstance(error, _CONNECT)
            raise _Again(_unreachable(error), 1.0, unsent=unsent) from error
        if answer.is_success:
            return body
        refused = _refusal(answer.status_code, body)
        if answer.status_code in _BUSY:
            raise _Again(refused, _seconds(answer.headers.get("retry-after", "")))
        raise refused


def parsed(answer: bytes) -> Any:
    """An answer's JSON.

    Raises:
        FailedTransferError: it is not JSON.
    """
    try:
        return parse(answer, ANSWER_BYTES_MAX)
    except FormatError as error:
        raise FailedTransferError("the server's answer is not JSON") from error


class _Again(Exception):
    """A try failed in a way that another one may not."""

    def __init__(
        self, error: SealiftError, seconds: float, *, unsent: bool = False
    ) -> None:
        super().__init__()
        self.error, self.seconds, self.unsent = error, seconds, unsent


def _bounded(answer: httpx2.Response) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise LimitError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def _unreachable(error: httpx2.HTTPError) -> FailedTransferError:
    reason = str(error) or type(error).__name__
    return FailedTransferError(
        f"the server cannot be reached: {reason}",
        hint="check the address, the CA file and that the server runs",
    )


def _refusal(status: int, body: bytes) -> SealiftError:
    """The error a problem document stands for (RFC 9457)."""
    try:
        found = parse(body, ANSWER_BYTES_MAX)
    except FormatError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return FailedTransferError(
            f"the server answered with status {status}",
            hint="is this the operator listener of a Sealift server?",
        )
    kind = _BY_CODE.get(found["code"], FailedTransferError)
    message = found.get("detail") or found.get("title") or f"status {status}"
    hint = found.get("hint")
    return kind(str(message), hint=hint if isinstance(hint, str) else None)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1.0


_BY_CODE = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SealiftError)
}
