"""The device's own keys in files: PKCS#8 PEM, mode 0600; one of three back ends.

The report key is Ed25519 or ECDSA P-256 (a ``DeviceKey``, see ``ports``), the
decryption key X25519 or P-256 (a ``DecryptionKey``). Loading one loads
``cryptography``: done where something is signed or unwrapped, never to poll.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sealift.agent.files import read_guarded
from sealift.agent.keyobject import key_id, key_object
from sealift.core.errors import KeyUnreadableError
from sealift.core.hpke import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_LIMIT = 16 * 1024  # bytes of a key file
_STORE_KEY = re.compile(rb"([0-9a-f]{64})\n?")


class FileKey:
    """A private key read once from a file."""

    def __init__(self, path: str) -> None:
        """Read the key.

        Raises:
            TrustAnchorError: the file is open to others, not ours, or a link (D-10).
            KeyUnreadableError: missing, not PEM, encrypted, or of another kind.
        """
        self._key = _loaded(
            read_guarded(
                path, "report key", limit=_LIMIT, secret=True, absent=KeyUnreadableError
            ),
            path,
        )
        self._public = key_object(self._key.public_key())

    @property
    def key_id(self) -> str:
        """Lower hex SHA-256 of the canonical public key object."""
        return key_id(self._public)

    def public(self) -> Mapping[str, object]:
        """The public key as a TUF key object."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Sign ``data``: raw Ed25519, or ECDSA with SHA-256 as strict DER."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(SHA256()))
        return self._key.sign(data)


def decryption_key(path: str) -> PrivateKey:
    """The key in a file that content keys are wrapped to.

    Raises:
        TrustAnchorError: the file is open to others, not ours, or a link (D-10).
        KeyUnreadableError: none is configured, missing, not PEM, encrypted, or of
            another kind.
    """
    if not path:
        raise KeyUnreadableError(
            "this device has no decryption key",
            hint="[device] decryption_key; `sealift device provision` makes one",
        )
    what = "decryption key"
    pem = read_guarded(path, what, limit=_LIMIT, secret=True, absent=KeyUnreadableError)
    try:
        return PrivateKey.from_pem(pem)
    except KeyUnreadableError as error:
        raise KeyUnreadableError(
            f"{what} {path}: {error.message}", path=path
        ) from error


def store_key(path: str) -> bytes:
    """The key in a file that the state is sealed with: 64 hex digits and a newline.

    Raises:
        TrustAnchorError: the file is open to others, not ours, or a link (D-10).
        KeyUnreadableError: missing, or something else is in it.
    """
    what = "store key"
    raw = read_guarded(path, what, limit=128, secret=True, absent=KeyUnreadableError)
    found = _STORE_KEY.fullmatch(raw)
    if found is None:
        raise KeyUnreadableError(
            f"{what} {path} does not hold 64 hex digits",
            hint="sealift-agent keys make",
            path=path,
        )
    return bytes.fromhex(found[1].decode())


def _loaded(pem: bytes, path: str) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import (
        SECP256R1,
        EllipticCurvePrivateKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnreadableError(
            f"report key {path} is not an unencrypted PEM private key", path=path
        ) from error
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise KeyUnreadableError(
        f"report key {path} is neither Ed25519 nor P-256", path=path
    )
