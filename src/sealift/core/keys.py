"""Public keys: reading them, checking one signature, counting towards a threshold.

A key is its decoded public part, never its id: one key under two ids, two spellings or
two schemes counts once (``uptane.md`` section 5). A signature that does not verify is
not an error by itself, it is not counted; too few counted signatures are one. The
``cryptography`` package is imported when the first signature is checked and not before,
so that a device that only polls never carries it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sealift.core import canonical
from sealift.core.errors import LimitError, MalformedError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PUBLIC_TEXT = 16_384
"""Characters of a public key as metadata carries it."""

MAX_SIGNATURE_HEX = 16_384
"""Characters of a signature in hex."""

DEMO_MARK = "x-sealift-demo"
"""Member of a key object made for demonstrations (``threats.md`` B-11)."""


class Family(StrEnum):
    """Which mathematics a key rests on; a hybrid role asks for both."""

    CLASSICAL = "classical"
    POST_QUANTUM = "post-quantum"


# Scheme → key type, family. All else is refused, HMAC and PGP above all.
_SCHEMES = {
    "ed25519": ("ed25519", Family.CLASSICAL),
    "ecdsa-sha2-nistp256": ("ecdsa", Family.CLASSICAL),
    "ecdsa-sha2-nistp384": ("ecdsa", Family.CLASSICAL),
    "ecdsa-sha2-nistp521": ("ecdsa", Family.CLASSICAL),
    "rsassa-pss-sha256": ("rsa", Family.CLASSICAL),
    "rsassa-pss-sha384": ("rsa", Family.CLASSICAL),
    "rsassa-pss-sha512": ("rsa", Family.CLASSICAL),
    "ml-dsa-44/1": ("ml-dsa", Family.POST_QUANTUM),
    "ml-dsa-65/1": ("ml-dsa", Family.POST_QUANTUM),
    "ml-dsa-87/1": ("ml-dsa", Family.POST_QUANTUM),
}

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as metadata lists it: well formed, not yet decoded."""

    keytype: str
    scheme: str
    public: str
    demo: bool = False

    @property
    def family(self) -> Family:
        """Classical or post-quantum."""
        return _SCHEMES[self.scheme][1]

    @classmethod
    def from_json(cls, found: object, limit: int = MAX_PUBLIC_TEXT) -> PublicKey:
        """Read a TUF key object. Unknown members are ignored.

        Raises:
            MalformedError: a member is missing or of a wrong type, or the type and
                scheme are not a pair we verify. Symmetric keys are not (B-13).
            LimitError: the public key text is too long.
        """
        if not isinstance(found, dict):
            raise MalformedError("a key is not an object")
        keytype, scheme = found.get("keytype"), found.get("scheme")
        if not _is_verified(keytype, scheme):
            raise MalformedError(
                "a key has a type and scheme we do not verify",
                hint="ed25519, ecdsa, rsa with PSS, and ml-dsa are verified",
                keytype=_shown(keytype),
                scheme=_shown(scheme),
            )
        value = found.get("keyval")
        public = value.get("public") if isinstance(value, dict) else None
        if not isinstance(public, str):
            raise MalformedError("a key has no public part")
        if len(public) > limit:
            raise LimitError(
                f"a public key is longer than {MAX_PUBLIC_TEXT} characters"
            )
        return cls(str(keytype), str(scheme), public, found.get(DEMO_MARK) is True)

    def to_json(self) -> dict[str, object]:
        """The key as a TUF key object."""
        found: dict[str, object] = {
            "keytype": self.keytype,
            "scheme": self.scheme,
            "keyval": {"public": self.public},
        }
        if self.demo:
            found[DEMO_MARK] = True
        return found

    @property
    def key_id(self) -> str:
        """The id python-tuf gives this key: SHA-256 over its canonical form, in hex.

        A label only: nothing in the verifier trusts it.
        """
        named = {
            "keytype": self.keytype,
            "scheme": self.scheme,
            "keyval": {"public": self.public},
        }
        return hashlib.sha256(canonical.encode(named)).hexdigest()

    @property
    def identity(self) -> bytes:
        """The decoded key, the same for each spelling, id and scheme of it.

        A text that does not decode identifies itself; it can never verify anything.
        """
        decoded = _decode(self.scheme, self.public)
        if decoded is None:
            return b"undecoded\0" + self.public.encode("utf-8", "surrogatepass")
        return decoded.identity


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Who has to sign: key ids listed for one role, and how many distinct keys.

    ``min_per_family`` asks for that many distinct keys of *each* family, so that
    neither a broken curve nor a broken lattice is enough (hybrid roles).
    """

    key_ids: tuple[str, ...]
    threshold: int
    min_per_family: int = 0


def signed_bytes(scheme: str, data: bytes) -> bytes:
    """The bytes a key of ``scheme`` signs for the canonical form ``data``.

    ML-DSA signs ``"tuf"``, a version byte 1 and a SHA-512 (draft TAP 21); everything
    else signs ``data`` itself. The draft may change, so it stands here and only here.
    """
    if scheme.startswith("ml-dsa-"):
        return b"tuf\x01" + hashlib.sha512(data).digest()
    return data


def verify(key: PublicKey, signature: bytes, data: bytes) -> bytes:
    """Check one signature over the canonical form ``data``; the key's identity.

    Raises:
        SignatureError: the key cannot be used, or the signature is not its own.
    """
    decoded = _decode(key.scheme, key.public)
    if decoded is None:
        raise SignatureError(
            f"a key for {key.scheme} cannot be used here", hint=_unusable_hint(key)
        )
    decoded.check(signature, signed_bytes(key.scheme, data))
    return decoded.identity


def require_threshold(
    what: str,
    data: bytes,
    signatures: Mapping[str, str],
    keys: Mapping[str, PublicKey],
    rule: KeyRule,
) -> frozenset[bytes]:
    """Count who signed ``data``; the identities of enough distinct keys.

    ``signatures`` maps key ids to hex. At most one signature is checked for each
    listed key, and none once the rule is satisfied.

    Raises:
        SignatureError: fewer distinct keys than ``rule`` asks for.
    """
    counted: dict[bytes, Family] = {}
    for key_id in rule.key_ids:
        key, text = keys.get(key_id), signatures.get(key_id)
        if key is None or text is None or not _HEX.fullmatch(text):
            continue
        try:
            counted[verify(key, bytes.fromhex(text), data)] = key.family
        except SignatureError:
            continue  # one bad signature beside enough good ones does no harm
        if _satisfied(counted, rule):
            return frozenset(counted)
    each = rule.min_per_family
    raise SignatureError(
        f"{what}: {len(counted)} of {rule.threshold} distinct keys signed"
        + (f", {each} of each family needed" if each else ""),
        hint=_missing_hint(keys, rule),
        role=what,
        signed=len(counted),
        threshold=rule.threshold,
    )


def _satisfied(counted: Mapping[bytes, Family], rule: KeyRule) -> bool:
    families = list(counted.values())
    return len(families) >= rule.threshold and all(
        families.count(family) >= rule.min_per_family for family in Family
    )


def _missing_hint(keys: Mapping[str, PublicKey], rule: KeyRule) -> str | None:
    for key_id in rule.key_ids:
        key = keys.get(key_id)
        if key is not None and _unusable_hint(key):
            return _unusable_hint(key)
    return None


def _unusable_hint(key: PublicKey) -> str | None:
    if key.family is Family.POST_QUANTUM and not _has_ml_dsa():
        return "this device cannot verify ML-DSA: it needs cryptography 48 or newer"
    return None


def _is_verified(keytype: object, scheme: object) -> bool:
    if not isinstance(scheme, str) or scheme not in _SCHEMES:
        return False
    repeated = scheme.startswith("ecdsa") and keytype == scheme  # python-tuf to 2021
    return repeated or keytype == _SCHEMES[scheme][0]


def _shown(value: object) -> str:
    return value[:64] if isinstance(value, str) else type(value).__name__


# ── decoding: where cryptography begins ──────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class _Decoded:
    """A usable key. ``check`` raises :class:`SignatureError` unless it signed."""

    identity: bytes
    check: Callable[[bytes, bytes], None]


def _has_ml_dsa() -> bool:
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa
    except ImportError:
        return False
    return bool(mldsa)


@lru_cache(maxsize=128)
def _decode(scheme: str, public: str) -> _Decoded | None:
    """Decode a key; ``None`` if the text is no key of that scheme, or too weak."""
    if scheme == "ed25519":
        return _ed25519(public)
    loaded = _load_pem(public)
    if loaded is None:
        return None
    if scheme.startswith("ecdsa-"):
        check = _ecdsa(loaded, scheme)
    elif scheme.startswith("rsassa-"):
        check = _rsa(loaded, scheme)
    else:
        check = _ml_dsa(loaded, scheme)
    return None if check is None else _Decoded(_spki(loaded), check)


def _load_pem(public: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(public.encode("utf-8", "surrogatepass"))
    except (ValueError, UnsupportedAlgorithm):  # the latter: ML-DSA before 48
        return None


def _spki(loaded: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    encoded = loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return bytes(encoded)


def _ed25519(public: str) -> _Decoded | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = bytes.fromhex(public) if _HEX_KEY.fullmatch(public) else None
    if raw is None or not _sound_point(raw):
        return None
    key = Ed25519PublicKey.from_public_bytes(raw)

    def check(signature: bytes, message: bytes) -> None:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            raise SignatureError("an ed25519 signature does not verify") from None

    return _Decoded(b"ed25519\0" + raw, check)


def _sound_point(raw: bytes) -> bool:
    """Whether the encoding is canonical and the point not of small order.

    Under a point of small order one signature fits any message (B-10), and a second
    spelling y + p would make one key two. A point has small order if y is 0, 1, -1 or
    a root of d·y⁴ + 2y² - 1, d = -121665/121666 (edwards25519, RFC 8032, section 5.1).
    """
    prime = 2**255 - 19
    y = int.from_bytes(raw, "little") % 2**255
    if y >= prime or y in {0, 1, prime - 1}:
        return False
    return (-121665 * pow(y, 4, prime) + 121666 * (2 * y * y - 1)) % prime != 0


_CURVES = {
    "ecdsa-sha2-nistp256": (
        "secp256r1",
        "SHA256",
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "ecdsa-sha2-nistp384": (
        "secp384r1",
        "SHA384",
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    "ecdsa-sha2-nistp521": (
        "secp521r1",
        "SHA512",
        0x1FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
    ),
}
"""Scheme → curve, hash, order of the group (SEC 2, version 2)."""


def _ecdsa(key: Any, scheme: str) -> Callable[[bytes, bytes], None] | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    curve, hash_name, order = _CURVES[scheme]
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve:
        return None
    algorithm = ec.ECDSA(getattr(hashes, hash_name)())

    def check(signature: bytes, message: bytes) -> None:
        try:
            r, s = utils.decode_dss_signature(signature)  # strict DER, or ValueError
            if not (0 < r < order and 0 < s < order):  # CVE-2022-21449
                raise SignatureError("an ecdsa signature is out of range")
            key.verify(utils.encode_dss_signature(r, s), message, algorithm)
        except (InvalidSignature, ValueError):
            raise SignatureError("an ecdsa signature does not verify") from None

    return check


def _rsa(key: Any, scheme: str) -> Callable[[bytes, bytes], None] | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    if not isinstance(key, rsa.RSAPublicKey) or not 2048 <= key.key_size <= 8192:
        return None
    algorithm = getattr(hashes, scheme.rsplit("-", 1)[1].upper())()
    pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)

    def check(signature: bytes, message: bytes) -> None:
        try:
            key.verify(signature, message, pss, algorithm)
        except InvalidSignature:
            raise SignatureError("an rsa signature does not verify") from None

    return check


def _ml_dsa(key: Any, scheme: str) -> Callable[[bytes, bytes], None] | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import mldsa

    level = scheme.removeprefix("ml-dsa-").removesuffix("/1")
    if not isinstance(key, getattr(mldsa, f"MLDSA{level}PublicKey")):
        return None

    def check(signature: bytes, message: bytes) -> None:
        try:
            key.verify(signature, message)
        except (InvalidSignature, ValueError):
            raise SignatureError("an ml-dsa signature does not verify") from None

    return check
