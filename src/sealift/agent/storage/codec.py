"""Bytes of the store's files, and what its errors are called."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from sealift.agent.files import NO_ROOM
from sealift.agent.seal import UNKEYED
from sealift.core.errors import SealiftError, SpaceError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.agent.seal import Seal

RECORD_LIMIT = 16 << 20
"""Most bytes of one record; the largest metadata file has 5 MB."""

NAME = re.compile(r"[a-z0-9._%-]{1,200}")
FILE = re.compile(rf"({NAME.pattern})@([0-9a-f]{{1,16}})")
INDEX, NEW_INDEX = "index", "index.new"


_DOMAIN = "store"
_LINE = re.compile(rb"sealift(?:1|2 ([0-9a-f]{16})) ([0-9a-f]{64})")


class DamagedError(StateError):
    """The bytes on the disk are not the bytes that were written."""


class ForeignError(StateError):
    """The state is of another making: another key, none, or one where none is known.

    Whoever strips the tags off must not be believed, so this is never repaired.
    """


def file_name(name: str, generation: int) -> str:
    """The file of a record as of one commit."""
    return f"{name}@{generation:x}"


def sealed(file: str, data: bytes, seal: Seal = UNKEYED) -> bytes:
    """The bytes of a file: a line with form and tag, then the data.

    Without a key the tag binds the record's name, with one the file's: the generation
    as well, so that an older file cannot be passed off as a newer one.
    """
    tag = seal.of(_DOMAIN).tag(_bound(file, data, seal))
    words = (b"sealift2", seal.key_id, tag) if seal.key else (b"sealift1", tag)
    return b" ".join(words) + b"\n" + data


def unsealed(file: str, raw: bytes, seal: Seal = UNKEYED) -> bytes:
    """The data of a file.

    Raises:
        ForeignError: sealed with another key, with one where there is none, or with
            none where there is one. DamagedError: these are not the bytes that were
            written for ``file``.
    """
    line, _, data = raw.partition(b"\n")
    found = _LINE.fullmatch(line)
    if found and (found[1] or b"") != seal.key_id:
        raise _foreign(found[1], seal)
    tag = found[2] if found else b""
    if not seal.of(_DOMAIN).fits(_bound(file, data, seal), tag):
        name = file.partition("@")[0]
        raise DamagedError(
            f"state of {name} is damaged" + (" or forged" if seal.key else ""),
            hint="the agent fetches or makes it again; check the disk",
            record=name,
        )
    return data


def _bound(file: str, data: bytes, seal: Seal) -> bytes:
    name = file if seal.key else file.partition("@")[0]
    return name.encode() + b"\0" + data


def _foreign(found: bytes | None, seal: Seal) -> ForeignError:
    if found is None:
        message = "the state was made without the key in [state] key"
    elif seal.key is None:
        message = "the state is sealed with a key, and [state] key names none"
    else:
        message = f"the state is sealed with key {found.decode()}, not with this one"
    return ForeignError(
        message,
        hint="nothing of it is believed: docs/agent.md, Old state and lost keys",
    )


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
