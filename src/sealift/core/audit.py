"""The audit leaf: what an event is, its canonical bytes, its leaf hash.

One event per state change, one leaf per event. A leaf is canonical JSON (design page
``audit-log.md``, sections 3.1 to 3.3): sorted members, no white space, no floats, texts
in NFC without anything a terminal or a log reader might obey. Under these limits
RFC 8785 and the canonical form of TUF metadata give the same bytes.

Who may read a leaf, and how leaves become a tree, is not here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from sealift.core.errors import LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "LEAF_BYTES_MAX",
    "SCHEMA",
    "Actor",
    "ActorType",
    "Event",
    "Kind",
    "Ref",
    "canonical",
    "leaf_bytes",
    "leaf_hash",
    "printable",
]

SCHEMA = 1
LEAF_BYTES_MAX = 32_768
NESTING_MAX = 8
INTEGER_MAX = 2**53 - 1

_MEMBER = re.compile(r"[a-z0-9_]{1,64}\Z")
# C0, DEL and C1, bidirectional controls, lone surrogates.
_REFUSED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Kind(StrEnum):
    """Every kind of event; their bodies are in ``docs/formats.md``."""

    TOKEN_ROTATED = "token.rotated"
    TOKEN_CREATED = "token.created"
    TOKEN_REVOKED = "token.revoked"
    ACCESS_DENIED = "access.denied"
    METADATA_PUBLISHED = "metadata.published"
    KEY_USED = "key.used"
    CONTAINER_STORED = "container.stored"
    RELEASE_PUBLISHED = "release.published"
    DEVICE_ENROLLED = "device.enrolled"
    DEVICE_RENEWED = "device.renewed"
    DEVICE_REVOKED = "device.revoked"
    CERTIFICATE_RETIRED = "certificate.retired"
    DEVICE_QUARANTINED = "device.quarantined"
    DELTA_STATE = "delta.state"
    DEPLOYMENT_STARTED = "deployment.started"
    DEPLOYMENT_ABORTED = "deployment.aborted"
    INSTALLATION_STATE = "installation.state"
    SERVER_BACKED_UP = "server.backed_up"
    SERVER_RESTORED = "server.restored"
    MANIFEST_ACCEPTED = "manifest.accepted"
    MANIFEST_REFUSED = "manifest.refused"


class ActorType(StrEnum):
    """What kind of somebody acted; never a claim of the request's body."""

    OPERATOR = "operator"
    TOKEN = "token"
    DEVICE = "device"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, as the session or the device's certificate says."""

    type: ActorType
    id: str


@dataclass(frozen=True, slots=True)
class Ref:
    """Something the event is about; ``sha256`` (lower hex) where it has one content."""

    type: str
    id: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One state change. ``id`` is random, 128 bits in hex; ``at`` is server time.

    Order and truth of time come from the log's index and checkpoints, not from ``at``.
    """

    id: str
    kind: Kind
    at: datetime
    actor: Actor
    tenant: str = "default"
    refs: tuple[Ref, ...] = ()
    body: Mapping[str, object] = field(default_factory=dict)


def leaf_bytes(event: Event) -> bytes:
    """The canonical bytes of the event's envelope (``audit-log.md`` section 3.2).

    Raises:
        MalformedError, LimitError: see :func:`canonical`.
    """
    refs = [
        {"type": r.type, "id": r.id} | ({"sha256": r.sha256} if r.sha256 else {})
        for r in event.refs
    ]
    envelope: dict[str, object] = {
        "schema": SCHEMA,
        "id": event.id,
        "kind": event.kind.value,
        "tenant": event.tenant,
        "time_server": event.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "actor": {"type": event.actor.type.value, "id": event.actor.id},
        "body": dict(event.body),
    }
    if refs:
        envelope["refs"] = refs
    return canonical(envelope)


def canonical(value: object) -> bytes:
    """``value`` as the one byte string that stands for it.

    Raises:
        MalformedError: a float, a type JSON has not, a member name outside
            ``[a-z0-9_]``, a refused character, a text not in NFC.
        LimitError: an integer above 2^53-1, nesting above 8, more than 32 768 bytes.
    """
    _check(value, NESTING_MAX)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found = text.encode("utf-8")
    if len(found) > LEAF_BYTES_MAX:
        raise LimitError(
            f"an audit leaf of {len(found)} bytes; at most {LEAF_BYTES_MAX}",
            hint="large things are named by digest and length",
        )
    return found


def leaf_hash(leaf: bytes) -> bytes:
    """The leaf's hash in the log: SHA-256(0x00 || leaf), RFC 6962 section 2.1."""
    return sha256(b"\x00" + leaf).digest()


def printable(text: str, limit: int = 256) -> str:
    """Foreign text as a leaf may hold it: NFC, refused characters as U+FFFD, cut.

    What came in stays elsewhere as evidence, by digest; this is for the reader.
    """
    cleaned = _REFUSED.sub("\ufffd", unicodedata.normalize("NFC", text[: 4 * limit]))
    return unicodedata.normalize("NFC", cleaned[:limit])


def _check(value: object, room: int) -> None:
    """Refuse what has no canonical form; ``room`` containers may still be opened."""
    if isinstance(value, list | tuple | dict) and room == 0:
        raise LimitError(f"an audit leaf nests deeper than {NESTING_MAX}")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise LimitError("an integer in an audit leaf is above 2^53-1")
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, room - 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_member(name)
            _check(item, room - 1)
    else:
        raise MalformedError(f"an audit leaf holds a {type(value).__name__}")


def _check_member(name: object) -> None:
    if not isinstance(name, str) or not _MEMBER.match(name):
        raise MalformedError(f"the member name {name!r} is outside [a-z0-9_]")


def _check_text(text: str) -> None:
    if _REFUSED.search(text):
        raise MalformedError("a text in an audit leaf holds a control character")
    if not unicodedata.is_normalized("NFC", text):
        raise MalformedError("a text in an audit leaf is not in NFC")
