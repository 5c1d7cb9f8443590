"""The operator's token: one, random, kept as a digest only.

Full access control comes later; until then this one credential is asked for by every
endpoint of the operator's listener.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

from sealift.core.audit import Actor, ActorType, Kind
from sealift.core.errors import AuthRequiredError, InvalidConfigError
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from sealift.server.ports import Means, Session

__all__ = ["TOKEN_ACTOR", "check_stored_token", "check_token", "rotate_token"]

TOKEN_BYTES = 32
TOKEN_PREFIX = "slt_"
"""Makes a leaked token findable by secret scanners."""

TOKEN_ACTOR = Actor(ActorType.TOKEN, "operator")
"""Who acts when the operator token was shown."""

_NEVER = frozenset(
    hashlib.sha256(text.encode()).hexdigest()
    for text in ("", "admin", "changeme", "password", "secret", "sealift", "token")
)


def rotate_token(means: Means, actor: Actor) -> str:
    """Make a new operator token and forget the old one; it is shown this once.

    Raises:
        AuditUnavailableError: nothing was changed.
    """
    secret = base64.urlsafe_b64encode(means.chance.token_bytes(TOKEN_BYTES))
    token = TOKEN_PREFIX + secret.decode("ascii").rstrip("=")
    digest = hashlib.sha256(token.encode("ascii")).hexdigest()
    with recorded(means, actor) as unit:
        unit.session.housekeeping.set_token(digest, unit.now)
        unit.record(Kind.TOKEN_ROTATED, {"token_sha256": digest[:16]})
    return token


def check_token(session: Session, token: str) -> Actor:
    """Who shows this token.

    Raises:
        AuthRequiredError: it is not the one in force. Takes the same time either way.
    """
    stored = session.housekeeping.token() or ""
    shown = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    if not hmac.compare_digest(stored, shown):
        raise AuthRequiredError(
            "this needs the operator token",
            hint="sealift server token rotate DIR prints a new one",
        )
    return TOKEN_ACTOR


def check_stored_token(session: Session) -> None:
    """Refuse to start on an unset or well-known token (F-13).

    Raises:
        InvalidConfigError: the stored digest is missing, malformed or of a known text.
    """
    stored = session.housekeeping.token() or ""
    if len(stored) != 64 or stored in _NEVER:
        raise InvalidConfigError(
            "the operator token is unset or one that anybody would try",
            hint="sealift server token rotate DIR",
        )
