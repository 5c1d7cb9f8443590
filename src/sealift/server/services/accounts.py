"""Operators' tokens: each random, kept as a digest only, with roles and an end.

The first one, ``operator``, is made with the server and by ``token rotate`` on its
machine: an administrator without an end, for whoever has the server's directory anyway.
All others are made by administrators, through the API, and expire.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sealift.core.audit import Actor, ActorType, Kind, Ref, printable
from sealift.core.errors import (
    AuthRequiredError,
    ConflictError,
    InvalidConfigError,
    InvalidInputError,
    NotFoundError,
)
from sealift.server.domain import permissions
from sealift.server.ports import Token
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sealift.server.domain.permissions import Action, Roles
    from sealift.server.ports import Means, Session

__all__ = [
    "DAYS",
    "DAYS_MAX",
    "FIRST",
    "Bearer",
    "all_tokens",
    "check_stored_token",
    "check_token",
    "create_token",
    "note_denied",
    "revoke_token",
    "rotate_token",
]

TOKEN_BYTES = 32
TOKEN_PREFIX = "slt_"
"""Makes a leaked token findable by secret scanners."""

FIRST = "operator"
"""The name of the token a server is made with."""

DAYS = 90
DAYS_MAX = 400
"""How long a token lasts, unless told otherwise and at most."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NEVER = frozenset(
    hashlib.sha256(text.encode()).hexdigest()
    for text in ("", "admin", "changeme", "password", "secret", "sealift", "token")
)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who shows a token, and what it allows."""

    actor: Actor
    roles: tuple[str, ...]
    allowed: frozenset[Action]
    expires_at: datetime | None


def rotate_token(means: Means, actor: Actor) -> str:
    """Make the first token anew and forget the old one; it is shown this once.

    Raises:
        AuditUnavailableError: nothing was changed.
    """
    token, digest = _drawn(means)
    with recorded(means, actor) as unit:
        made = Token(FIRST, digest, ("admin",), actor.id, unit.now)
        unit.session.tokens.save(made)
        unit.record(Kind.TOKEN_ROTATED, {"token_sha256": digest[:16]})
    return token


def create_token(
    means: Means, actor: Actor, name: str, roles: Collection[str], days: int = DAYS
) -> tuple[str, Token]:
    """Make a token with roles that ends after ``days``; it is shown this once.

    Raises:
        InvalidInputError: no usable name, an unknown role, too long. ConflictError: the
            name was given before: whoever reads the log must not take two for one.
        AuditUnavailableError: nothing was changed.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name[:64]!r} cannot be the name of a token",
            hint="lower-case letters, digits and . _ -, at most 64",
        )
    if not 1 <= days <= DAYS_MAX:
        raise InvalidInputError(f"a token lasts 1 to {DAYS_MAX} days, not {days}")
    chosen = permissions.known(means.roles, roles)
    token, digest = _drawn(means)
    with recorded(means, actor) as unit:
        if unit.session.tokens.find(name) is not None:
            raise ConflictError(
                f"a token was called {name} before",
                hint="names of tokens are never used again: choose another",
            )
        ends = unit.now + timedelta(days=days)
        made = Token(name, digest, chosen, actor.id, unit.now, ends)
        unit.session.tokens.save(made)
        unit.record(
            Kind.TOKEN_CREATED,
            {
                "token_sha256": digest[:16],
                "roles": list(chosen),
                "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            [Ref("token", name)],
        )
    return token, made


def revoke_token(means: Means, actor: Actor, name: str, reason: str) -> Token:
    """Take a token back; the next request with it is refused.

    Raises:
        NotFoundError: there is none of that name. ConflictError: it is the first one,
            which is replaced and never missing. AuditUnavailableError: nothing changed.
    """
    with recorded(means, actor) as unit:
        found = unit.session.tokens.find(name)
        if found is None:
            raise NotFoundError("there is no token of that name")
        if name == FIRST:
            raise ConflictError(
                "the server's own token is replaced, not revoked",
                hint="sealift server token rotate DIR",
            )
        if found.revoked_at is not None:
            return found
        found = replace(found, revoked_at=unit.now)
        unit.session.tokens.save(found)
        unit.record(
            Kind.TOKEN_REVOKED, {"reason": printable(reason)}, [Ref("token", name)]
        )
    return found


def note_denied(means: Means, actor: Actor, action: Action) -> None:
    """Somebody tried what he may not (F-14).

    Raises:
        AuditUnavailableError: the log cannot be written.
    """
    with recorded(means, actor) as unit:
        unit.record(Kind.ACCESS_DENIED, {"action": str(action)})


def all_tokens(session: Session) -> Sequence[Token]:
    """Every token there ever was, the newest first."""
    return session.tokens.all()


def check_token(session: Session, roles: Roles, token: str, now: datetime) -> Bearer:
    """Who shows this token, and what he may do.

    Raises:
        AuthRequiredError: it is unknown, revoked or expired.
    """
    shown = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    # Found by the digest of 256 random bits: how long that takes tells nothing of them.
    found = session.tokens.shown(shown)
    if found is None:
        raise AuthRequiredError(
            "this needs a token of this server",
            hint="an administrator makes one: sealift token create",
        )
    if found.revoked_at is not None:
        raise AuthRequiredError("this token was revoked", hint="ask for another one")
    if found.expires_at is not None and now >= found.expires_at:
        raise AuthRequiredError("this token has expired", hint="ask for another one")
    return Bearer(
        Actor(ActorType.TOKEN, found.name),
        found.roles,
        permissions.permitted(roles, found.roles),
        found.expires_at,
    )


def check_stored_token(session: Session) -> None:
    """Refuse to start on an unset or well-known token (F-13).

    Raises:
        InvalidConfigError: the stored digest is missing, malformed or of a known text.
    """
    first = session.tokens.find(FIRST)
    stored = first.sha256 if first is not None else ""
    if len(stored) != 64 or stored in _NEVER:
        raise InvalidConfigError(
            "the operator token is unset or one that anybody would try",
            hint="sealift server token rotate DIR",
        )


def _drawn(means: Means) -> tuple[str, str]:
    """A fresh token and its digest."""
    secret = base64.urlsafe_b64encode(means.chance.token_bytes(TOKEN_BYTES))
    token = TOKEN_PREFIX + secret.decode("ascii").rstrip("=")
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()
