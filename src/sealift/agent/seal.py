"""What tells bytes of this device's own making from all others: a key, or a digest.

Without a key a tag is a plain SHA-256, which finds rot and torn writes. With the key
that ``[state] key`` names it is an HMAC-SHA-256, which whoever can write the medium and
does not have the key cannot make either. Standard library only: the polling parent
reads the store, too.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

KEY_BYTES: Final = 32
"""Bytes of a store key."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Tags for one purpose. ``domain`` keeps a tag of one from serving in another."""

    key: bytes | None = field(default=None, repr=False)
    domain: bytes = b""

    def of(self, domain: str) -> Seal:
        """The same key for another purpose; a domain holds no NUL."""
        return replace(self, domain=domain.encode())

    def tag(self, data: bytes) -> bytes:
        """64 lower hex digits over ``data``; without a key, whatever the domain."""
        if self.key is None:
            return sha256(data).hexdigest().encode()
        return self._hmac(data).hex().encode()

    def fits(self, data: bytes, tag: bytes) -> bool:
        """Whether ``tag`` is that of ``data``, told in constant time."""
        return hmac.compare_digest(self.tag(data), tag)

    def derived(self) -> bytes | None:
        """A key of its own for the domain, 32 bytes; ``None`` without a key."""
        return None if self.key is None else self._hmac(b"")

    @property
    def key_id(self) -> bytes:
        """16 lower hex digits that name the key and tell nothing of it."""
        if self.key is None:
            return b""
        return hmac.digest(self.key, b"sealift key id\0", "sha256")[:8].hex().encode()

    def _hmac(self, data: bytes) -> bytes:
        assert self.key is not None  # noqa: S101  the callers asked
        return hmac.digest(self.key, b"sealift " + self.domain + b"\0" + data, "sha256")


UNKEYED: Final = Seal()
"""Where no key is configured."""
