"""The device's own keys in files: PKCS#8 PEM, mode 0600.

The report key is Ed25519 or ECDSA P-256 (a ``DeviceKey``, see ``ports``), the
decryption key X25519 or P-256 (a ``DecryptionKey``). Loading one loads
``cryptography``: done where something is signed or unwrapped, never to poll.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sealift.agent.files import read_guarded
from sealift.core import canonical
from sealift.core.errors import KeyUnreadableError
from sealift.core.hpke import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_LIMIT = 16 * 1024  # bytes of a key file


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
        self._public = _key_object(self._key)

    @property
    def key_id(self) -> str:
        """Lower hex SHA-256 of the canonical public key object."""
        return hashlib.sha256(canonical.encode(dict(self._public))).hexdigest()

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


def _key_object(
    key: Ed25519PrivateKey | EllipticCurvePrivateKey,
) -> Mapping[str, object]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key()
    if isinstance(key, Ed25519PrivateKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _tuf_key("ed25519", "ed25519", raw.hex())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _tuf_key("ecdsa", "ecdsa-sha2-nistp256", pem.decode())


def _tuf_key(keytype: str, scheme: str, public: str) -> Mapping[str, object]:
    return {"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}
