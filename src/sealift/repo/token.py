"""Keys on a PKCS#11 token: ECDSA P-256, through python-pkcs11 (extra ``pkcs11``).

Addresses are those of RFC 7512, without its secrets: `token`, `serial`, `object`, `id`
in the path, `module-path` and `pin-source` in the query. A `pin-value` is refused, for
command lines are public. One key must match; an address that fits several is refused.

The private key never leaves the token: we hash, the token signs. The session lives as
long as one signature.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.signer import Signature, Signer, SSlibKey

from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    MissingToolError,
    PassphraseError,
    RefusedError,
)
from sealift.repo import keyfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securesystemslib.signer import Key

    Secrets = Callable[[str], str]

__all__ = [
    "Address",
    "TokenSigner",
    "open_signer",
    "parse_short",
    "parse_uri",
    "pin_of",
]

MODULE_VARIABLE = "PYKCS11LIB"
DEFAULT_ID = 2
"""PIV digital signature slot 9c, where smart cards keep a signing key."""


@dataclass(frozen=True, slots=True)
class Address:
    """Which key on which token, through which module; ``None`` matches any."""

    module: str
    token: str | None = None
    serial: str | None = None
    label: str | None = None
    key_id: bytes | None = None
    pin_source: Path | None = None

    @property
    def where(self) -> str:
        """The token as a question names it."""
        return f"token {self.token or self.serial or 'present'}"


def parse_uri(rest: str, environ: Mapping[str, str] = os.environ) -> Address:
    """Read what follows ``pkcs11:`` (RFC 7512, section 2.3).

    Raises:
        InvalidConfigError: an unknown attribute, a PIN in the address, or no module.
    """
    path, _, query = rest.partition("?")
    found = dict(_pairs(path, ";"))
    options = dict(_pairs(query, "&"))
    unknown = (set(found) - {"token", "serial", "object", "id", "type"}) | (
        set(options) - {"module-path", "pin-source"}
    )
    if unknown:
        raise InvalidConfigError(
            f"pkcs11: attribute {min(unknown)!r} is not taken",
            hint="token, serial, object, id, module-path, pin-source; the PIN is asked",
        )
    key_id = found.get("id")
    source = options.get("pin-source")
    return Address(
        module=_module(options.get("module-path"), environ),
        token=_text(found.get("token")),
        serial=_text(found.get("serial")),
        label=_text(found.get("object")),
        key_id=None if key_id is None else unquote_to_bytes(key_id),
        pin_source=None
        if source is None
        else Path(unquote(source.removeprefix("file:"))),
    )


def parse_short(rest: str, environ: Mapping[str, str] = os.environ) -> Address:
    """Read what follows ``hsm:``, ``[ID][?label=TOKEN]`` with a decimal id.

    Raises:
        InvalidConfigError: not of that form, or no module.
    """
    number, _, query = rest.partition("?")
    if number and not (number.isascii() and number.isdigit()):
        raise InvalidConfigError(
            f"hsm:{number} does not begin with a decimal key id",
            hint="hsm:2?label=MyToken",
        )
    value = int(number[:9]) if number else DEFAULT_ID
    return Address(
        module=_module(None, environ),
        token=dict(parse_qsl(query)).get("label"),
        key_id=value.to_bytes(max(1, (value.bit_length() + 7) // 8)),
    )


class TokenSigner(Signer):
    """Signs with one private key on a token; the PIN is asked once per signer."""

    def __init__(self, address: Address, public_key: SSlibKey, pin: str) -> None:
        self._address = address
        self._public_key = public_key
        self._pin = pin

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return self._public_key

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: Key,
        secrets_handler: Callable[[str], str] | None = None,
    ) -> TokenSigner:
        """The library's way in; ``public_key`` must be the one on the token."""
        found = open_signer(parse_uri(priv_key_uri.partition(":")[2]), secrets_handler)
        if found.public_key.keyval != public_key.keyval:
            raise KeyUnreadableError("the token holds another key")
        return found

    def sign(self, payload: bytes) -> Signature:
        """ECDSA over SHA-256 of ``payload``, in DER.

        Raises:
            KeyUnreadableError, PassphraseError, MissingToolError: as they say.
        """
        with _session(self._address, self._pin) as (library, session):
            private = _one(library, session, self._address, "PRIVATE_KEY")
            raw = private.sign(
                hashlib.sha256(payload).digest(), mechanism=library.Mechanism.ECDSA
            )
            from pkcs11.util.ec import encode_ecdsa_signature

            return Signature(self.public_key.keyid, encode_ecdsa_signature(raw).hex())


def open_signer(address: Address, secrets: Secrets | None) -> TokenSigner:
    """Find the key, ask for the PIN, and show the public half.

    Raises:
        PassphraseError: no PIN, or a wrong one. KeyUnreadableError: no such token or
            key, or several. RefusedError: not ECDSA P-256. MissingToolError: the extra
            is not installed.
    """
    pin = pin_of(address, secrets)
    with _session(address, pin) as (library, session):
        found = _one(library, session, address, "PUBLIC_KEY")
        from pkcs11.util.ec import encode_ec_public_key

        der = encode_ec_public_key(found)
    try:
        public = SSlibKey.from_crypto(load_der_public_key(der))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RefusedError(f"the key on {address.where} is of an unknown kind") from (
            error
        )
    if public.scheme != "ecdsa-sha2-nistp256":
        raise RefusedError(
            f"the key on {address.where} is {public.scheme}, not ECDSA P-256",
            hint="make a P-256 key on the token",
        )
    return TokenSigner(address, public, pin)


@contextmanager
def _session(address: Address, pin: str) -> Iterator[tuple[Any, Any]]:
    """The library and one session; its exceptions become ours."""
    try:
        import pkcs11
    except ImportError as error:
        raise MissingToolError(
            "keys on tokens need python-pkcs11", hint="pip install 'sealift[pkcs11]'"
        ) from error
    errors = pkcs11.exceptions
    try:
        token = pkcs11.lib(address.module).get_token(
            token_label=address.token,
            token_serial=None if address.serial is None else address.serial.encode(),
            token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED,
        )
        with token.open(user_pin=pin) as session:
            yield pkcs11, session
    except (errors.PinIncorrect, errors.PinInvalid, errors.PinLenRange) as error:
        raise PassphraseError(
            f"{address.where} does not take this PIN",
            hint="tokens lock after a few wrong ones: make sure before trying again",
        ) from error
    except errors.PinLocked as error:
        raise PassphraseError(
            f"{address.where} is locked", hint="unlock it with its SO PIN"
        ) from error
    except (errors.PKCS11Error, RuntimeError) as error:
        raise KeyUnreadableError(
            f"{address.where}: {type(error).__name__} {error}".rstrip(),
            hint="is it plugged in, initialised, and is the module's path right?",
        ) from error


def _one(library: Any, session: Any, address: Address, kind: str) -> Any:
    return session.get_key(
        getattr(library.ObjectClass, kind),
        library.KeyType.EC,
        label=address.label,
        id=address.key_id,
    )


def pin_of(address: Address, secrets: Secrets | None) -> str:
    """The PIN: the first line of the file the address names, or the answer.

    Raises:
        PassphraseError: neither is to be had. KeyUnreadableError: the file is unsafe.
    """
    if address.pin_source is not None:
        lines = keyfile.read(address.pin_source).decode("utf-8", "replace").splitlines()
        if lines:
            return lines[0]
    elif secrets is not None:
        return secrets(f"PIN of {address.where}")
    raise PassphraseError(f"{address.where} needs a PIN and none was given")


def _module(path: str | None, environ: Mapping[str, str]) -> str:
    found = unquote(path) if path is not None else environ.get(MODULE_VARIABLE)
    if not found:
        raise InvalidConfigError(
            "the address does not say which PKCS#11 module to load",
            hint=f"add ?module-path=/path/to/module.so, or set {MODULE_VARIABLE}",
        )
    if not Path(found).is_absolute():
        raise InvalidConfigError(
            f"the PKCS#11 module {found!r} is not an absolute path",
            hint="it is loaded into this program: name the file itself",
        )
    return found


def _pairs(text: str, separator: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidConfigError(f"pkcs11: {part!r} is not NAME=VALUE")
        yield name, value


def _text(value: str | None) -> str | None:
    return None if value is None else unquote(value)
