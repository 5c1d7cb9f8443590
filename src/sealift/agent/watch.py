"""The light poll: is there anything worth waking the verifier for?

Nothing is believed here and nothing is kept on disk. Three requests as uptane.md
section 9 lists them for a check without news: the Director's next Root, its Timestamp,
the Image repository's next Root (decision j). An answer only decides *when* the full
check runs, so a liar gains no more than a server that is silent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.agent.ports import Transport

TIMESTAMP_LIMIT = 32_768
ROOT_LIMIT = 262_144


@dataclass(frozen=True, slots=True)
class Known:
    """What the last full check left: versions of the Roots, digest of the Timestamp.

    ``expires`` is when the Director's Timestamp ends, in seconds since 1970.
    """

    director_root: int
    image_root: int
    timestamp: str | None = None
    expires: float | None = None

    @classmethod
    def from_summary(cls, found: Mapping[str, object]) -> Known | None:
        """Out of what a child told; ``None`` if it told nothing usable."""
        director, image = found.get("director_root"), found.get("image_root")
        if type(director) is not int or type(image) is not int:
            return None
        timestamp, expires = found.get("timestamp"), found.get("expires")
        return cls(
            director,
            image,
            timestamp if isinstance(timestamp, str) else None,
            float(expires) if isinstance(expires, int | float) else None,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What one light poll saw."""

    news: bool
    poll_seconds: float | None = None


class Watch:
    """Remembers, in memory only, which Timestamps were examined already."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: Known | None = None
        self._etag: str | None = None
        self._examined: str | None = None

    def learn(self, known: Known | None) -> None:
        """Take up what a full check found out."""
        self._known = known or self._known

    def forget(self) -> None:
        """The last full check did not come to an end: the same answer is news again."""
        self._etag = self._examined = None

    def look(self) -> Look:
        """Ask the server once.

        Raises:
            SealiftError: no usable answer; as ``Transport.get``.
        """
        known = self._known
        if known is None:
            return Look(news=True)
        if self._has_root("director", known.director_root + 1):
            return Look(news=True)
        answer = self._transport.get(
            "director/metadata/timestamp.json", limit=TIMESTAMP_LIMIT, etag=self._etag
        )
        changed = answer.status == 200 and self._is_new(answer.body, known)
        self._etag = answer.etag or self._etag
        news = changed or self._has_root("image", known.image_root + 1)
        return Look(news, answer.poll_seconds)

    def _is_new(self, body: bytes, known: Known) -> bool:
        digest = hashlib.sha256(body).hexdigest()
        new = digest not in {known.timestamp, self._examined}
        self._examined = digest
        return new

    def _has_root(self, repository: str, version: int) -> bool:
        path = f"{repository}/metadata/{version}.root.json"
        return self._transport.get(path, limit=ROOT_LIMIT).status == 200
