"""Which keys may enter: algorithms we sign with, families, demo marks, one role each.

Asked when a key is *introduced* (B-12). What a device then does with a key it finds in
a verified Root is the verifier's matter (``core.keys``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import Key, SSlibKey

from sealift.core.errors import MalformedError, RefusedError
from sealift.core.keys import DEMO_MARK, Family, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "ALGORITHMS",
    "NAME_FIELD",
    "Algorithm",
    "algorithm_of",
    "family",
    "identity",
    "introduce",
    "is_demo",
    "is_post_quantum",
    "labelled",
    "name_of",
    "refuse_shared",
    "under_its_id",
]

NAME_FIELD = "x-sealift-name"
"""Member of a key object that says what people call the key."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way of signing that may be introduced."""

    name: str
    keytype: str
    scheme: str
    family: Family


ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("ed25519", "ed25519", "ed25519", Family.CLASSICAL),
        Algorithm("ecdsa-p256", "ecdsa", "ecdsa-sha2-nistp256", Family.CLASSICAL),
        Algorithm("ml-dsa-65", "ml-dsa", "ml-dsa-65/1", Family.POST_QUANTUM),
    )
}
"""The policy list. RSA, P-521, ML-DSA-44 and everything symmetric stay outside."""

PUBLISHED_KEYS = frozenset(
    {
        # RFC 8032, section 7.1, tests 1 to 3, 1024 and SHA(abc).
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        # The seeds 00…00 and ff…ff.
        "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
        "76a1592044a6e4f511265bca73a604d90b0529d1df602be30a19a9257660d1f5",
    }
)
"""Ed25519 keys everybody can sign with (B-11)."""


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
    if str(key.keyval["public"]).lower() in PUBLISHED_KEYS:
        raise RefusedError(
            "the private half of this key is published",
            hint="anybody could sign with it; make a new one",
            key_id=key.keyid,
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


def family(key: Key) -> Family:
    """The family a key counts for in a hybrid role."""
    return PublicKey.from_json(key.to_dict()).family


def is_post_quantum(key: Key) -> bool:
    """Whether the key is a hybrid role's second one."""
    return family(key) is Family.POST_QUANTUM


def identity(key: Key) -> bytes:
    """The public key itself, whatever it is called and however it is written.

    Exactly as devices see it, so that both sides count alike (``core.keys``).

    Raises:
        MalformedError: it cannot be decoded, or is a key no signature protects.
    """
    found = PublicKey.from_json(key.to_dict()).identity
    if found.startswith(b"undecoded\0"):
        raise MalformedError(f"public key {key.keyid[:12]} is malformed")
    return found


def is_demo(key: Key) -> bool:
    """Whether the key object carries the demo mark, in whatever form."""
    return DEMO_MARK in key.unrecognized_fields


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
        fields[DEMO_MARK] = True
    return SSlibKey(key.keyid, key.keytype, key.scheme, dict(key.keyval), fields)


def under_its_id(key: Key) -> SSlibKey:
    """The same key under the id and in the spelling computed from it.

    Raises:
        MalformedError: it cannot be decoded.
    """
    public = key.keyval.get("public")
    try:
        decoded: PublicKeyTypes
        if key.keytype == "ed25519":
            decoded = Ed25519PublicKey.from_public_bytes(bytes.fromhex(str(public)))
        else:
            decoded = load_pem_public_key(str(public).encode("utf-8"))
        made = SSlibKey.from_crypto(decoded, scheme=key.scheme)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError("a public key is malformed") from error
    fields = dict(key.unrecognized_fields)
    return SSlibKey(made.keyid, made.keytype, made.scheme, made.keyval, fields)


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
