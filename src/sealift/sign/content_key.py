"""The key by which a server takes content keys: its public half, as the desk has it.

``content-key.json`` comes from the server's ``public/`` directory, with the same care
as ``online-keys.json``: whoever exchanges it can read what is sealed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.core import fields
from sealift.core.canonical import parse_object
from sealift.core.errors import MalformedError
from sealift.core.hpke import Recipient
from sealift.repo.files import read_as, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAME", "read_content_key", "write_content_key"]

NAME = "content-key.json"
"""What the file is called, at the server and at the desk."""

BYTES_MAX = 16_384


def read_content_key(path: Path) -> Recipient:
    """The key in a file.

    Raises:
        InvalidConfigError: it cannot be read.
        MalformedError, LimitError: it is none, not a usable one, or not of that id.
    """
    return read_as(path, BYTES_MAX, _parsed)


def write_content_key(path: Path, recipient: Recipient) -> None:
    """Write what :func:`read_content_key` reads.

    Raises:
        SpaceError, InvalidConfigError: it cannot be written.
    """
    found = {"v": 1, **recipient.to_json(), "kid": recipient.kid}
    write_atomic(path, json.dumps(found, indent=2).encode() + b"\n", mode=0o644)


def _parsed(raw: bytes) -> Recipient:
    found = parse_object(raw, BYTES_MAX)
    fields.count(found, "v", 1, 1)
    recipient = Recipient.from_json(found)
    if found.get("kid") != recipient.kid:
        raise MalformedError("the key id is not that of the key")
    return recipient
