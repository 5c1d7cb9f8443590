"""HPKE (RFC 9180), base mode, one message, no AAD: a short secret for one recipient.

KEMs are DHKEM over X25519 and P-256, both with HKDF-SHA256; the key schedule is
HKDF-SHA256, the cipher AES-256-GCM. Functions and labels are named as in RFC 9180,
sections 4 and 5. ``cryptography`` 38 is enough, which has no HPKE of its own, and it is
imported when a key is used and not before. Chance is an argument, and so is the use of
the private key: whoever keeps it elsewhere (a TPM, a token) hands in its ``dh``.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sealift.core import fields
from sealift.core.errors import DecryptError, KeyUnreadableError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

X25519: Final = "x25519"
P256: Final = "p256"

PRIVATE: Final = 32
"""Bytes of a private key of either KEM."""

_TAG = 16
_HKDF_SHA256 = 1
_AES_256_GCM = (2, 32)
"""Id and key length of the cipher (RFC 9180, section 7.3)."""
_ANY = bytes([1] * PRIVATE)
"""A private key that tells usable public keys from others, as each would: those of
X25519 are multiples of eight, so a point of small order gives zero with all of them."""
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Kem:
    """One key encapsulation: its id and the bytes of a public key, and of ``enc``."""

    name: str
    number: int
    length: int


KEMS: Final[Mapping[str, Kem]] = {
    X25519: Kem(X25519, 0x0020, 32),
    P256: Kem(P256, 0x0010, 65),
}
"""What can be wrapped to; anything else is refused by name."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key secrets can be wrapped to. ``from_json`` refuses unusable ones."""

    kem: str
    public: bytes

    @property
    def kid(self) -> str:
        """First 16 hex digits of SHA-256 over the KEM id and the public key."""
        number = KEMS[self.kem].number.to_bytes(2, "big")
        return sha256(number + self.public).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        """The key as JSON values."""
        return {"kem": self.kem, "public": self.public.hex()}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Recipient:
        """Read what :meth:`to_json` wrote.

        Raises:
            MalformedError: an unknown KEM, or no usable key of it: off the curve, or a
                point that makes every shared secret the same.
        """
        kem = kem_of(fields.text(found, "kem", 32))
        public = fields.digest(found, "public", kem.length)
        _agreed(PrivateKey(kem.name, _ANY), public)
        return cls(kem.name, public)


class PrivateKey:
    """A private key in memory. One kept elsewhere needs the same three members."""

    def __init__(self, kem: str, private: bytes) -> None:
        """Take 32 bytes, for P-256 a number from 1 to the order less one.

        Raises:
            MalformedError: an unknown KEM, or the bytes are no key of it.
        """
        self.kem = kem_of(kem).name
        self._key = _private_key(kem, private)
        self.public: bytes = _public_bytes(kem, self._key.public_key())

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(self.kem, self.public)

    def dh(self, enc: bytes) -> bytes:
        """The Diffie-Hellman secret with the point ``enc``.

        Raises:
            DecryptError: ``enc`` is no usable point.
        """
        from cryptography.hazmat.primitives.asymmetric import ec

        peer = _point(self.kem, enc)
        try:
            if self.kem == P256:
                return bytes(self._key.exchange(ec.ECDH(), peer))
            return bytes(self._key.exchange(peer))
        except ValueError:  # X25519 with a point of small order
            raise DecryptError("a wrapped key has a point of small order") from None

    def pem(self) -> bytes:
        """The key as unencrypted PKCS#8 PEM, for a file nobody else may read."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return bytes(
            self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    @classmethod
    def from_pem(cls, pem: bytes) -> PrivateKey:
        """Read what :meth:`pem` wrote.

        Raises:
            KeyUnreadableError: no unencrypted PEM private key of a KEM there is.
        """
        return cls(*_from_pem(pem))


def kem_of(name: str) -> Kem:
    """The KEM of that name; raises ``MalformedError`` if there is none."""
    if name not in KEMS:
        raise MalformedError("this KEM is not known here", kem=name[:32])
    return KEMS[name]


def new_private(kem: str, draw: Callable[[int], bytes]) -> bytes:
    """A fresh private key from ``draw(count)``, which gives random bytes.

    Raises:
        MalformedError: an unknown KEM.
    """
    bounded = kem_of(kem).name == P256
    while True:
        private = draw(PRIVATE)
        if not bounded or 0 < int.from_bytes(private, "big") < _P256_ORDER:
            return private


def seal(kem: str, public: bytes, plain: bytes, info: bytes, ephemeral: bytes) -> bytes:
    """``enc ‖ ciphertext`` of ``plain`` for the holder of ``public``.

    ``ephemeral`` is a private key of :func:`new_private`, used once and forgotten.

    Raises:
        MalformedError: an unknown KEM, or ``public`` is no usable key of it.
    """
    found, sender = kem_of(kem), PrivateKey(kem, ephemeral)
    secret = _agreed(sender, public)
    shared = _shared_secret(found, secret, sender.public, public)
    key, nonce = _key_schedule(found, shared, info)
    return sender.public + bytes(_aead(key).encrypt(nonce, plain, None))


def unseal(
    kem: str, public: bytes, dh: Callable[[bytes], bytes], data: bytes, info: bytes
) -> bytes:
    """What :func:`seal` sealed for ``public``, whose private key computes ``dh``.

    Raises:
        DecryptError: for another key or another ``info``, or changed.
        MalformedError: an unknown KEM.
    """
    from cryptography.exceptions import InvalidTag

    found = kem_of(kem)
    enc, sealed = data[: found.length], data[found.length :]
    if len(sealed) < _TAG:
        raise DecryptError("a wrapped key is cut short")
    _point(kem, enc)  # hardware may multiply without looking
    secret = dh(enc)
    if not any(secret):  # RFC 9180, section 7.1.4
        raise DecryptError("a wrapped key has a point of small order")
    key, nonce = _key_schedule(found, _shared_secret(found, secret, enc, public), info)
    try:
        return bytes(_aead(key).decrypt(nonce, sealed, None))
    except InvalidTag:
        raise DecryptError(
            "a wrapped key does not open",
            hint="it was made for another key, device, unit or release",
        ) from None


# ── key schedule ─────────────────────────────────────────────────────────────────────
def hkdf_expand(name: str, prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869, section 2.3) with the hash ``name``."""
    out = block = b""
    for count in range(1, 256):
        block = hmac.digest(prk, block + info + bytes([count]), name)
        out += block
        if len(out) >= length:
            break
    return out[:length]


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hkdf_expand("sha256", prk, labelled, length)


def _shared_secret(kem: Kem, secret: bytes, enc: bytes, public: bytes) -> bytes:
    """ExtractAndExpand of section 4.1."""
    suite = b"KEM" + kem.number.to_bytes(2, "big")
    prk = _extract(suite, b"", b"eae_prk", secret)
    return _expand(suite, prk, b"shared_secret", enc + public, 32)


def _key_schedule(
    kem: Kem, shared: bytes, info: bytes, cipher: tuple[int, int] = _AES_256_GCM
) -> tuple[bytes, bytes]:
    """KeySchedule of section 5.1 without a PSK: the key and the base nonce."""
    number, length = cipher
    suite = b"HPKE" + b"".join(
        part.to_bytes(2, "big") for part in (kem.number, _HKDF_SHA256, number)
    )
    context = (
        b"\x00"
        + _extract(suite, b"", b"psk_id_hash", b"")
        + _extract(suite, b"", b"info_hash", info)
    )
    secret = _extract(suite, shared, b"secret", b"")
    return (
        _expand(suite, secret, b"key", context, length),
        _expand(suite, secret, b"base_nonce", context, 12),
    )


# ── curves: where cryptography begins ────────────────────────────────────────────────
def _aead(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _private_key(kem: str, private: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, x25519

    if len(private) != PRIVATE:
        raise MalformedError("a private key has 32 bytes")
    try:
        if kem == P256:
            number = int.from_bytes(private, "big")
            return ec.derive_private_key(number, ec.SECP256R1())
        return x25519.X25519PrivateKey.from_private_bytes(private)
    except ValueError:
        raise MalformedError("these bytes are no private key of the KEM") from None


def _public_bytes(kem: str, public: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if kem == P256:
        return bytes(public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    return bytes(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _point(kem: str, raw: bytes) -> Any:
    """The point, checked to be on its curve, or ``DecryptError``."""
    from cryptography.hazmat.primitives.asymmetric import ec, x25519

    if len(raw) == KEMS[kem].length:
        try:
            if kem == P256:  # of this length: uncompressed, the one form HPKE has
                curve = ec.SECP256R1()
                return ec.EllipticCurvePublicKey.from_encoded_point(curve, raw)
            return x25519.X25519PublicKey.from_public_bytes(raw)
        except ValueError:
            pass
    raise DecryptError("a wrapped key has no point of its curve")


def _agreed(private: PrivateKey, public: bytes) -> bytes:
    """The secret with ``public``, or ``MalformedError`` if there can be none."""
    try:
        return private.dh(public)
    except DecryptError:
        raise MalformedError("this is no usable public key of the KEM") from None


def _from_pem(pem: bytes) -> tuple[str, bytes]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, x25519
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnreadableError("this is not an unencrypted PEM private key") from None
    if isinstance(key, x25519.X25519PrivateKey):
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return X25519, raw
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
        return P256, key.private_numbers().private_value.to_bytes(PRIVATE, "big")
    raise KeyUnreadableError("a decryption key is X25519 or P-256, and this is neither")
