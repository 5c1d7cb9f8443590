"""Keys in a PKCS#11 token (RFC 7512 addresses), through python-pkcs11.

``pkcs11:token=device;object=report?module-path=/usr/lib/…so&pin-source=file:/etc/…``

The PIN comes from a file of mode 0600, never from the address. ``token`` or ``serial``
is needed where there are several tokens (device-D32). The library is loaded into the
process that uses a key, and a session lasts as long as one act; the polling parent
loads neither.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, unquote_to_bytes

from sealift.agent import keyobject
from sealift.agent.files import read_guarded
from sealift.core.errors import (
    DecryptError,
    InvalidConfigError,
    KeyUnreadableError,
    MissingToolError,
    PassphraseError,
)
from sealift.core.hpke import P256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = ["Address", "TokenDecryptionKey", "TokenKey", "derived_key", "make", "parse"]

PATH: Final = frozenset({"token", "serial", "object", "id", "type"})
QUERY: Final = frozenset({"module-path", "pin-source"})

_STORE_PURPOSE: Final = b"sealift store key 1"
_BITS: Final = 256


@dataclass(frozen=True, slots=True)
class Address:
    """Which object on which token; ``None`` matches any."""

    module: str
    pin_source: str
    token: str | None
    serial: str | None
    label: str | None
    object_id: bytes | None

    @property
    def where(self) -> str:
        """The token in words."""
        return f"token {self.token or self.serial or 'present'}"

    @property
    def what(self) -> str:
        """The object in words."""
        name = self.label or (self.object_id.hex() if self.object_id else "of its kind")
        return f"key {name} on {self.where}"


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        InvalidConfigError: an unknown attribute, a PIN in it, no module, no PIN file,
            or no name of an object.
    """
    path, _, query = text.removeprefix("pkcs11:").partition("?")
    found = dict(_pairs(path, ";", PATH))
    options = dict(_pairs(query, "&", QUERY))
    label, object_id = found.get("object"), found.get("id")
    if label is None and object_id is None:
        raise InvalidConfigError(
            "a pkcs11 address without object and id", hint="object=NAME or id=%02"
        )
    return Address(
        module=_file(options, "module-path"),
        pin_source=_file(options, "pin-source"),
        token=_text(found.get("token")),
        serial=_text(found.get("serial")),
        label=_text(label),
        object_id=None if object_id is None else unquote_to_bytes(object_id),
    )


def _pairs(
    text: str, separator: str, known: frozenset[str]
) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise InvalidConfigError(
                f"pkcs11 attribute {name!r} is not taken",
                hint="token, serial, object, id; ?module-path=…&pin-source=file:…",
            )
        yield name, value


def _file(options: Mapping[str, str], name: str) -> str:
    found = unquote(options.get(name, "")).removeprefix("file:")
    if not found.startswith("/"):
        raise InvalidConfigError(
            f"a pkcs11 address without {name}, an absolute file name",
            hint="…?module-path=/usr/lib/module.so&pin-source=file:/etc/sealift/pin",
        )
    return found


def _text(value: str | None) -> str | None:
    return None if value is None else unquote(value)


# ── keys ─────────────────────────────────────────────────────────────────────────────
class TokenKey:
    """A P-256 key that signs reports and never leaves the token."""

    def __init__(self, address: str) -> None:
        """Ask for its public half.

        Raises:
            KeyUnreadableError: no such token or key, or not P-256. PassphraseError: a
            wrong PIN. TrustAnchorError: the PIN file is open to others.
            InvalidConfigError, MissingToolError: the address, or the library.
        """
        self._address = parse(address)
        self._public = keyobject.key_object(_public(self._address))

    @property
    def key_id(self) -> str:
        """Lower hex SHA-256 of the canonical public key object."""
        return keyobject.key_id(self._public)

    def public(self) -> Mapping[str, object]:
        """The public key as a TUF key object."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256 as DER; the PIN is given for each signature.

        Raises:
            KeyUnreadableError, PassphraseError: as when it was opened.
        """
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        digest = hashlib.sha256(data).digest()
        with _session(self._address) as (library, session):
            key = _one(library, session, self._address, "PRIVATE_KEY", "EC")
            raw = bytes(key.sign(digest, mechanism=library.Mechanism.ECDSA))
        half = len(raw) // 2
        return encode_dss_signature(
            int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        )


class TokenDecryptionKey:
    """A P-256 key that content keys are wrapped to, by ``ECDH1_DERIVE``."""

    kem = P256

    def __init__(self, address: str) -> None:
        """Remember where it lies.

        Raises:
            InvalidConfigError: the address is none.
        """
        self._address = parse(address)

    @cached_property
    def public(self) -> bytes:
        """The public key as an uncompressed point."""
        return _point(_public(self._address))

    def dh(self, enc: bytes) -> bytes:
        """The x coordinate of the shared point; the caller has checked the point.

        Raises:
            DecryptError: ``enc`` is no point. KeyUnreadableError, PassphraseError: the
            token refuses.
        """
        if len(enc) != 65 or enc[0] != 4:
            raise DecryptError("a wrapped key has no point of its curve")
        with _session(self._address) as (library, session):
            key = _one(library, session, self._address, "PRIVATE_KEY", "EC")
            secret = key.derive_key(
                library.KeyType.GENERIC_SECRET,
                _BITS,
                mechanism=library.Mechanism.ECDH1_DERIVE,
                mechanism_param=(library.KDF.NULL, None, enc),
                template={
                    library.Attribute.TOKEN: False,
                    library.Attribute.SENSITIVE: False,
                    library.Attribute.EXTRACTABLE: True,
                },
            )
            return bytes(secret[library.Attribute.VALUE])


def derived_key(address: str) -> bytes:
    """The store key: an HMAC that a secret key computes inside the token.

    Raises:
        KeyUnreadableError, PassphraseError, InvalidConfigError, MissingToolError,
        TrustAnchorError: as :class:`TokenKey`.
    """
    place = parse(address)
    with _session(place) as (library, session):
        key = _one(library, session, place, "SECRET_KEY", None)
        mechanism = library.Mechanism.SHA256_HMAC
        return bytes(key.sign(_STORE_PURPOSE, mechanism=mechanism))


def _public(address: Address) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        SECP256R1,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    with _session(address) as (library, session):
        found = _one(library, session, address, "PUBLIC_KEY", "EC")
        from pkcs11.util.ec import encode_ec_public_key

        der = encode_ec_public_key(found)
    public = load_der_public_key(der)
    if isinstance(public, EllipticCurvePublicKey) and isinstance(
        public.curve, SECP256R1
    ):
        return public
    raise KeyUnreadableError(f"the {address.what} is not P-256")


def _point(public: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _one(
    library: Any, session: Any, address: Address, kind: str, key_type: str | None
) -> Any:
    errors = library.exceptions
    try:
        return session.get_key(
            getattr(library.ObjectClass, kind),
            None if key_type is None else getattr(library.KeyType, key_type),
            label=address.label,
            id=address.object_id,
        )
    except errors.NoSuchKey as error:
        raise KeyUnreadableError(
            f"there is no {address.what}",
            hint="sealift-agent keys make; or pkcs11-tool --list-objects",
        ) from error
    except errors.MultipleObjectsReturned as error:
        raise KeyUnreadableError(
            f"several objects are the {address.what}", hint="name object and id"
        ) from error


@contextmanager
def _session(address: Address, *, writable: bool = False) -> Iterator[tuple[Any, Any]]:
    """The library and one session; its exceptions become ours."""
    try:
        import pkcs11
    except ImportError as error:
        raise MissingToolError(
            "keys in tokens need python-pkcs11", hint="pip install 'sealift[pkcs11]'"
        ) from error
    errors = pkcs11.exceptions
    pin = _pin(address)
    try:
        token = pkcs11.lib(address.module).get_token(
            token_label=address.token,
            token_serial=address.serial.encode() if address.serial else None,
            token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED,
        )
        if token.flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY:
            raise PassphraseError(
                f"{address.where} has one try of its PIN left, and that is not ours",
                hint="see that the PIN file is right, and log in once by hand",
            )
        with token.open(user_pin=pin, rw=writable) as session:
            yield pkcs11, session
    except (errors.PinIncorrect, errors.PinInvalid, errors.PinLenRange) as error:
        raise PassphraseError(
            f"{address.where} does not take the PIN in {address.pin_source}",
            hint="tokens lock after a few wrong ones: make sure before trying again",
        ) from error
    except errors.PinLocked as error:
        raise PassphraseError(
            f"{address.where} is locked", hint="unlock it with its SO PIN"
        ) from error
    except errors.MultipleTokensReturned as error:
        raise KeyUnreadableError(
            "there are several tokens, and the address fits more than one",
            hint="name one: pkcs11:token=LABEL;…",
        ) from error
    except (errors.PKCS11Error, RuntimeError) as error:
        raise KeyUnreadableError(
            f"{address.where}: {type(error).__name__} {error}".rstrip(),
            hint="is it plugged in, initialised, and is the module's path right?",
        ) from error


def _pin(address: Address) -> str:
    raw = read_guarded(
        address.pin_source, "PIN", limit=256, secret=True, absent=KeyUnreadableError
    )
    return raw.decode("utf-8", "replace").splitlines()[0]


# ── making ───────────────────────────────────────────────────────────────────────────
def make(address: str, use: str) -> None:
    """Make the object unless it is there: for ``sign``, ``decrypt`` or ``store``.

    Raises:
        KeyUnreadableError, PassphraseError, InvalidConfigError, MissingToolError,
        TrustAnchorError: as :class:`TokenKey`.
    """
    place = parse(address)
    with _session(place, writable=True) as (library, session):
        kind = "SECRET_KEY" if use == "store" else "PRIVATE_KEY"
        if _is_there(lambda: _one(library, session, place, kind, None)):
            return
        if use == "store":
            session.generate_key(
                library.KeyType.GENERIC_SECRET,
                _BITS,
                store=True,
                label=place.label,
                id=place.object_id,
                capabilities=library.MechanismFlag.SIGN,
                template={
                    library.Attribute.SENSITIVE: True,
                    library.Attribute.EXTRACTABLE: False,
                },
            )
            return
        from pkcs11.util.ec import encode_named_curve_parameters

        parameters = session.create_domain_parameters(
            library.KeyType.EC,
            {library.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        flag = library.MechanismFlag
        parameters.generate_keypair(
            store=True,
            label=place.label,
            id=place.object_id,
            capabilities=flag.SIGN | flag.VERIFY if use == "sign" else flag.DERIVE,
        )


def _is_there(look: Callable[[], object]) -> bool:
    try:
        look()
    except KeyUnreadableError:
        return False
    return True
