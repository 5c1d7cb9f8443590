"""The content-key key: made once, kept in a file, opens what the desk wraps to it.

A content key is opened for the moment it is needed and written nowhere; the database
holds wraps only (design page ``crypto-and-identity.md``, section 7.2).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.core import encryption, hpke
from sealift.core.errors import DecryptError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.core.types import Wrap

__all__ = ["ContentKeyFile", "make_pem", "public_json"]


class ContentKeyFile:
    """The :class:`~sealift.server.ports.ContentOpener` over a PEM key in memory."""

    def __init__(self, pem: bytes) -> None:
        """Take the key.

        Raises:
            KeyUnreadableError: no unencrypted private key of a KEM there is.
        """
        self._key = hpke.PrivateKey.from_pem(pem)
        self.kem = self._key.kem
        self.kid = self._key.recipient.kid

    def open(self, wrap: Wrap, path: str, sealed_sha256: bytes) -> bytes:
        """A content key; see the port."""
        if (wrap.kem, wrap.kid) != (self.kem, self.kid):
            raise DecryptError(
                f"the content key is wrapped to key {wrap.kid}, not to this server's",
                hint="seal it with public/content-key.json of this server",
            )
        info = encryption.upload_info(path, sealed_sha256)
        try:
            return encryption.unwrap(
                self.kem, self._key.public, self._key.dh, wrap.data, info
            )
        except MalformedError as error:
            raise DecryptError(f"the content key: {error.message}") from error

    def public(self) -> hpke.Recipient:
        """What the desk needs to wrap content keys for this server."""
        return self._key.recipient


def make_pem(draw: Callable[[int], bytes]) -> bytes:
    """A fresh key as PEM; ``draw(count)`` gives random bytes."""
    return hpke.PrivateKey(hpke.X25519, hpke.new_private(hpke.X25519, draw)).pem()


def public_json(key: hpke.Recipient) -> bytes:
    """The file ``content-key.json``."""
    found = {"v": 1, **key.to_json(), "kid": key.kid}
    return json.dumps(found, indent=2, sort_keys=True).encode() + b"\n"
