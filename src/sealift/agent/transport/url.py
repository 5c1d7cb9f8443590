"""Addresses: where a request goes, and where a redirect may lead. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from sealift.core.errors import FailedTransferError

if TYPE_CHECKING:
    from sealift.agent.transport.answers import Head

_HTTPS_PORT: Final = 443
_LOCATION_MAX: Final = 4096


def origin(url: str) -> tuple[str, int]:
    """Host and port of an https address.

    Raises:
        FailedTransferError: another scheme, no host, or somebody's password in it.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise FailedTransferError("not an https address of a server")
    return parts.hostname, parts.port or _HTTPS_PORT


def target(url: str) -> str:
    """What the request line names: path and query."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return (parts.path or "/") + query


def followed(url: str, head: Head) -> str:
    """Where a redirect leads.

    Raises:
        FailedTransferError: nowhere, or away from https.
    """
    location = head.get("location")
    if not location or len(location) > _LOCATION_MAX:
        raise FailedTransferError("the server redirects to nowhere")
    found = urljoin(url, location)
    origin(found)
    return found
