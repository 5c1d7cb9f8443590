"""The public half of a device's report key, as a report and its server name it.

Wherever the private half is kept, in a file, a TPM or a token, this is what is told of
it. Uses ``cryptography`` where a key is at hand, which is where it is loaded anyway.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sealift.core import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def key_object(public: Ed25519PublicKey | EllipticCurvePublicKey) -> dict[str, object]:
    """The TUF key object of a public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(public, Ed25519PublicKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _tuf_key("ed25519", "ed25519", raw.hex())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _tuf_key("ecdsa", "ecdsa-sha2-nistp256", pem.decode())


def key_id(found: Mapping[str, object]) -> str:
    """Lower hex SHA-256 of the canonical key object."""
    return hashlib.sha256(canonical.encode(dict(found))).hexdigest()


def _tuf_key(keytype: str, scheme: str, public: str) -> dict[str, object]:
    return {"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}
