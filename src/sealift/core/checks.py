"""The single checks of the TUF workflow. Each raises, or there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sealift.core.errors import (
    ExpiredError,
    MalformedError,
    MisdirectedError,
    MixedError,
    RollbackError,
)
from sealift.core.keys import KeyRule, PublicKey, require_threshold
from sealift.core.metadata import (
    FileInfo,
    Parsed,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from sealift.core.trusted import Rules, Trusted

Signers = tuple[Mapping[str, PublicKey], KeyRule]
"""The keys a delegator knows, and its rule for one role."""


def signers(root: Root, role: str) -> Signers:
    """Who signs a top-level role."""
    return root.keys, root.roles[role]


def require_signed(
    parsed: Parsed[Root] | Parsed[Timestamp] | Parsed[Snapshot] | Parsed[Targets],
    role: str,
    listed: Signers,
) -> None:
    """R2, T2, S3, G3: enough distinct keys signed, else ``SignatureError``."""
    keys, rule = listed
    require_threshold(role, parsed.signed, parsed.signatures, keys, rule)


def require_ours(rules: Rules, role: str, body: Timestamp | Snapshot | Targets) -> None:
    """X1, before any version is compared: a foreign file must not move a floor."""
    if rules.device_id is not None and body.device_id != rules.device_id:
        raise MisdirectedError(f"{role} is for another device", role=role)
    if role in rules.issued and body.issued is None:
        raise MalformedError(f"{role} does not say when it was issued", role=role)


def require_version(what: str, version: int, floor: int) -> None:
    """T3, S4, S5: no version below the trusted one, else ``RollbackError``."""
    if version < floor:
        raise RollbackError(
            f"{what}: version {version}, {floor} is trusted already", role=what
        )


def require_listed_version(role: str, version: int, info: FileInfo) -> None:
    """S2, G2: exactly the version the parent lists, else ``MixedError``."""
    if version != info.version:
        raise MixedError(
            f"{role}: version {version}, its parent lists {info.version}", role=role
        )


def require_fresh(state: Trusted, role: str, expires: datetime, now: datetime) -> None:
    """R4, T4, S7, G5: not expired at ``now`` or at the metadata time."""
    moment = max(now, state.floor) if state.floor else now
    if moment >= expires:
        raise ExpiredError(
            f"{role} expired at {expires:%Y-%m-%d %H:%M:%S} UTC",
            hint="the repository must publish a fresh one; or the clock is wrong",
            role=role,
        )
