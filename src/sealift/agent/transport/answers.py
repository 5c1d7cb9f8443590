"""What the head of an answer means: ranges, waiting times, refusals. Pure.

Header values and problem texts come from a server nobody trusts: they are bounded,
compared with what was asked, and never more than data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.core import canonical, errors
from sealift.core.errors import (
    AuthRequiredError,
    FailedTransferError,
    FormatError,
    InvalidInputError,
    LengthError,
    NotFoundError,
    RequestError,
    RevokedError,
    SealiftError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_MAX: Final = 16 * 1024
"""Bytes of a problem document that are read; the rest is of no interest."""

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
ABSENT: Final = frozenset({403, 404, 410})

_TEXT_MAX: Final = 200
_ETAG_MAX: Final = 200
_SECONDS_MAX: Final = 7 * 86_400
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; names are lower case."""

    status: int
    headers: Mapping[str, str]

    def get(self, name: str) -> str:
        """The value of a header, empty if there is none."""
        return self.headers.get(name, "").strip()

    @property
    def etag(self) -> str | None:
        """The entity tag, if it is printable and short."""
        value = self.get("etag")
        return value if value.isprintable() and 0 < len(value) <= _ETAG_MAX else None

    @property
    def poll_seconds(self) -> int | None:
        """The interval asked for in ``Sealift-Poll-Seconds``."""
        return _seconds(self.get("sealift-poll-seconds"))

    @property
    def length(self) -> int | None:
        """The announced length of the body."""
        value = self.get("content-length")
        return int(value) if value.isascii() and value.isdigit() else None

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks, and nothing else is done to it."""
        return self.get("transfer-encoding").lower() == "chunked"


def check_plain(head: Head) -> None:
    """Refuse content codings and bodies whose end nobody could tell.

    Raises:
        FailedTransferError: as named.
    """
    if head.get("content-encoding").lower() not in {"", "identity"}:
        raise FailedTransferError("the server encoded the content; nobody asked for it")
    if head.get("transfer-encoding") and not head.chunked:
        raise FailedTransferError("the answer has an unknown transfer coding")
    if head.chunked == (head.length is not None):
        raise FailedTransferError("the answer does not say clearly where it ends")


def check_range(head: Head, start: int, stop: int, length: int) -> int:
    """The place in the file where the body of an answer to a range begins.

    Raises:
        FailedTransferError: no range was given, another one, or several.
        LengthError: the file has another length than the signed one.
    """
    check_plain(head)
    if head.length is None:
        raise FailedTransferError("the answer to a range comes in chunks")
    if head.status == 200:
        if head.length != length:
            raise LengthError(
                "the server's file has another length than the signed one",
                length=head.length,
                signed=length,
            )
        return 0
    if head.get("content-type").lower().startswith("multipart/"):
        raise FailedTransferError("the server answered with several ranges")
    found = _RANGE.fullmatch(head.get("content-range"))
    if not found:
        raise FailedTransferError("the answer to a range does not say which it is")
    first, last, total = map(int, found.groups())
    if total != length:
        raise LengthError(
            "the server's file has another length than the signed one",
            length=total,
            signed=length,
        )
    if (first, last + 1) != (start, stop) or head.length != stop - start:
        raise FailedTransferError(
            "the server gave another range than the one asked for"
        )
    return start


def refusal(head: Head, body: bytes, *, sent: bool) -> SealiftError:
    """The error that an answer other than success stands for.

    ``sent``: we brought something, so a refusal may be about what we brought.
    """
    problem = _problem(head, body)
    code = problem.get("code", "")
    status = head.status
    said = problem.get("title") or f"status {status}"
    if status == 401:
        return AuthRequiredError(
            f"the server does not know this device: {said}", status=status
        )
    if code == RevokedError.code:
        return RevokedError(f"the server revoked this device: {said}", status=status)
    if sent and 400 <= status < 500 and status != 429:
        kind = _REQUEST_ERRORS.get(code, InvalidInputError)
        hint = problem.get("hint")
        return kind(f"the server refused: {said}", hint=hint, status=status)
    if status in ABSENT:
        return NotFoundError("the server does not have this file", status=status)
    retry = _seconds(head.get("retry-after"))
    return FailedTransferError(
        f"the server said: {said}", retry_after=retry, status=status
    )


def _problem(head: Head, body: bytes) -> dict[str, str]:
    """The text members of a problem document (RFC 9457), each cut short."""
    if head.get("content-type").partition(";")[0].lower() != "application/problem+json":
        return {}
    try:
        found = canonical.parse_object(body, PROBLEM_MAX)
    except FormatError:
        return {}
    return {
        name: "".join(filter(str.isprintable, value[:_TEXT_MAX]))
        for name, value in found.items()
        if isinstance(value, str)
    }


def _seconds(value: str) -> int | None:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        return None
    return min(int(value), _SECONDS_MAX) or None


_REQUEST_ERRORS: Final = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError)
}
