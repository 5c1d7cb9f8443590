"""Errors as ``application/problem+json`` (RFC 9457), and answers in JSON.

``code`` is ours and stable, ``title`` is what the code means, ``detail`` what happened.
Nothing of a request is reflected but what our own messages name, and an error nobody
planned says nothing about itself: it is in the log.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from sealift.core import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Send

__all__ = ["RETRY_SECONDS", "STATUS", "problem", "send_error", "send_json", "status_of"]

RETRY_SECONDS = 30
"""What ``Retry-After`` says with 429 and 503."""

STATUS: dict[type[errors.SealiftError], int] = {
    errors.SealiftError: 500,
    # families
    errors.FormatError: 400,
    errors.MetadataError: 422,
    errors.PayloadError: 422,
    errors.TransportError: 503,
    errors.DeviceError: 503,
    errors.PolicyError: 403,
    errors.RequestError: 400,
    errors.KeyFileError: 503,
    errors.ConfigError: 503,
    # codes that differ from their family
    errors.RollbackError: 409,
    errors.AuthRequiredError: 401,
    errors.ReportInvalidError: 422,
    errors.ReportReplayError: 409,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.TooLargeError: 413,
    errors.InvalidInputError: 422,
    errors.RateLimitedError: 429,
    errors.AuditBrokenError: 503,
    errors.AuditUnavailableError: 503,
}
"""HTTP status per class; the nearest class upwards counts."""

_log = logging.getLogger("sealift.server")
_encode = msgspec.json.Encoder().encode


def status_of(error: errors.SealiftError) -> int:
    """The HTTP status an error is answered with."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: errors.SealiftError) -> dict[str, object]:
    """The members of the problem document."""
    found: dict[str, object] = {
        "type": "about:blank",
        "status": status_of(error),
        "code": error.code,
        "title": _title(type(error)),
        "detail": error.message,
    }
    if error.hint:
        found["hint"] = error.hint
    if error.fields:
        found["fields"] = dict(error.fields)
    return found


def _title(kind: type[errors.SealiftError]) -> str:
    return (kind.__doc__ or kind.code).strip().splitlines()[0].replace("``", "")


async def send_error(send: Send, error: Exception, *, close: bool = False) -> None:
    """Answer with an error; one that is not ours becomes a bare 500.

    ``close`` ends the connection with the answer.
    """
    if not isinstance(error, errors.SealiftError):
        _log.error("unexpected error", exc_info=error)
        found: dict[str, object] = {
            "type": "about:blank",
            "status": 500,
            "code": "error",
            "title": "The server failed; nothing was changed.",
        }
    else:
        found = problem(error)
    headers = _headers(found)
    if close:
        headers.append((b"connection", b"close"))
    await _send(send, found["status"], json.dumps(found).encode(), headers)


async def send_json(send: Send, value: object, status: int = 200) -> None:
    """Answer with a value as JSON."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await _send(send, status, _encode(value), headers)


def _headers(found: Mapping[str, object]) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
    ]
    if found["status"] in {429, 503}:
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    if found["status"] == 401:
        headers.append((b"www-authenticate", b'Bearer realm="sealift"'))
    return headers


async def _send(
    send: Send, status: Any, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, length, (b"x-content-type-options", b"nosniff")],
        }
    )
    await send({"type": "http.response.body", "body": body})
