"""Bytes of the store's files, and what its errors are called."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from sealift.agent.files import NO_ROOM
from sealift.core.errors import SealiftError, SpaceError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

RECORD_LIMIT = 16 << 20
"""Most bytes of one record; the largest metadata file has 5 MB."""

NAME = re.compile(r"[a-z0-9._%-]{1,200}")
FILE = re.compile(rf"({NAME.pattern})@([0-9a-f]{{1,16}})")
INDEX, NEW_INDEX = "index", "index.new"


class DamagedError(StateError):
    """The bytes on the disk are not the bytes that were written."""


def file_name(name: str, generation: int) -> str:
    """The file of a record as of one commit."""
    return f"{name}@{generation:x}"


def sealed(name: str, data: bytes) -> bytes:
    """The bytes of a file: a line with the digest, then the data."""
    digest = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()
    return b"sealift1 " + digest.encode() + b"\n" + data


def unsealed(name: str, raw: bytes) -> bytes:
    """The data of a file.

    Raises:
        DamagedError: these are not the bytes that were written for ``name``.
    """
    data = raw[74:]
    if sealed(name, data) != raw:
        raise DamagedError(
            f"state of {name} is damaged",
            hint="the agent fetches or makes it again; check the disk",
            record=name,
        )
    return data


def index_data(generation: int, records: Mapping[str, int]) -> bytes:
    """What the index says: its own generation, and that of each record."""
    found = {"generation": generation, "records": records}
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def read_index(raw: bytes) -> tuple[int, dict[str, int]]:
    """Read what :func:`index_data` wrote.

    Raises:
        DamagedError: it is something else.
    """
    try:
        found = json.loads(raw)
        return int(found["generation"]), {
            str(name): int(generation) for name, generation in found["records"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError("the index of the state directory is no index") from error


def translated(error: OSError, what: str) -> SealiftError:
    """A refusal of the system in our words: no room, or an unusable place."""
    if error.errno in NO_ROOM:
        return SpaceError(f"{what}: {error.strerror}", hint="free some space")
    return StateError(f"{what}: {error.strerror}", hint="check mount, mode and owner")
