"""Which keys may enter: algorithms we sign with, families, demo marks, one role each.

Asked when a key is *introduced* (B-12). What a device then does with a key it finds in
a verified Root is the verifier's matter (``core.keys``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import Key, SSlibKey

from sealift.core.errors import MalformedError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "ALGORITHMS",
    "DEMO_FIELD",
    "NAME_FIELD",
    "Algorithm",
    "algorithm_of",
    "family",
    "identity",
    "introduce",
    "is_demo",
    "labelled",
    "name_of",
    "refuse_shared",
]

DEMO_FIELD = "x-sealift-demo"
"""Member of a key object that marks a throw-away key (B-11)."""
NAME_FIELD = "x-sealift-name"
"""Member of a key object that says what people call the key."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way of signing that may be introduced."""

    name: str
    keytype: str
    scheme: str
    family: str
    """``classical`` or ``post-quantum``: what one mathematical advance would break."""


ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("ed25519", "ed25519", "ed25519", "classical"),
        Algorithm("ecdsa-p256", "ecdsa", "ecdsa-sha2-nistp256", "classical"),
        Algorithm("ml-dsa-65", "ml-dsa", "ml-dsa-65/1", "post-quantum"),
    )
}
"""The policy list. RSA, P-521, ML-DSA-44 and everything symmetric stay outside."""


def introduce(key: Key, *, allow_demo: bool = False) -> Algorithm:
    """Take a public key into use, or say why not.

    Raises:
        RefusedError: its algorithm is not on the list, it is malformed, or it is marked
            as a demo key and this is not a demo.
    """
    found = algorithm_of(key)
    if found is None:
        raise RefusedError(
            f"keys of type {key.keytype} with scheme {key.scheme} are not taken",
            hint=f"use one of {', '.join(ALGORITHMS)}",
            key_id=key.keyid,
        )
    try:
        identity(key)
    except MalformedError as error:
        raise RefusedError(f"a {found.name} key is malformed", key_id=key.keyid) from (
            error
        )
    if is_demo(key) and not allow_demo:
        raise RefusedError(
            f"{name_of(key)} is a demo key",
            hint="demo keys are published or throw-away; make real ones with "
            "`sealift init` or `sealift keys generate`",
            key_id=key.keyid,
        )
    return found


def algorithm_of(key: Key) -> Algorithm | None:
    """The entry of the policy list a key belongs to."""
    for algorithm in ALGORITHMS.values():
        if (key.keytype, key.scheme) == (algorithm.keytype, algorithm.scheme):
            return algorithm
    return None


def family(key: Key) -> str:
    """The family a key counts for in a hybrid role."""
    return "post-quantum" if key.keytype == "ml-dsa" else "classical"


def identity(key: Key) -> bytes:
    """The public key itself, whatever it is called and however it is written.

    Raises:
        MalformedError: it cannot be decoded.
    """
    public = key.keyval["public"]
    try:
        decoded: PublicKeyTypes
        if key.keytype == "ed25519":
            decoded = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        else:
            decoded = load_pem_public_key(public.encode("utf-8"))
        return decoded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"public key {key.keyid[:12]} is malformed") from error


def is_demo(key: Key) -> bool:
    """Whether the key object carries the demo mark, in whatever form."""
    return DEMO_FIELD in key.unrecognized_fields


def name_of(key: Key) -> str:
    """What people call the key; the start of its id if it has no name."""
    found = key.unrecognized_fields.get(NAME_FIELD)
    return found if isinstance(found, str) and found else key.keyid[:12]


def labelled(key: SSlibKey, name: str | None, *, demo: bool = False) -> SSlibKey:
    """The same key with a name, and with the demo mark if ``demo``."""
    fields = dict(key.unrecognized_fields)
    if name is not None:
        fields[NAME_FIELD] = name
    if demo:
        fields[DEMO_FIELD] = True
    return SSlibKey(key.keyid, key.keytype, key.scheme, dict(key.keyval), fields)


def refuse_shared(uses: Mapping[str, Iterable[Key]]) -> None:
    """One key, one role, one repository; ``uses`` maps a role's full name to its keys.

    Raises:
        RefusedError: a public key stands in two of them, or twice in one.
    """
    seen: dict[bytes, str] = {}
    for role, keys in uses.items():
        for key in keys:
            known = seen.setdefault(identity(key), role)
            if known is not role or _count(keys, key) > 1:
                raise RefusedError(
                    f"key {name_of(key)} of {role} is used for {known} already",
                    hint="every role of every repository has keys of its own",
                    key_id=key.keyid,
                )


def _count(keys: Iterable[Key], key: Key) -> int:
    wanted = identity(key)
    return sum(identity(other) == wanted for other in keys)
