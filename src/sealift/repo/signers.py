"""Key addresses to signers, in one table.

| address | key |
|---|---|
| `file:PATH`, or a path alone | PKCS#8 PEM in a file (``keyfile``) |
| `pkcs11:token=T;id=%01?module-path=P` | ECDSA P-256 on a token, by RFC 7512 |
| `hsm:ID?label=T` | the same, short; the module's path is in `PYKCS11LIB` |

A signer is securesystemslib's ``Signer``: it signs bytes and shows its public half. The
same ceremony serves a file, a token and, one day, a service.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.signer import CryptoSigner, SSlibKey

from sealift.core.errors import RefusedError
from sealift.repo import keyfile
from sealift.repo.files import write_atomic
from sealift.repo.policy import identity, introduce, labelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securesystemslib.signer import Key, Signer

    from sealift.repo.keyfile import PrivateKey

    Secrets = Callable[[str], str]

__all__ = [
    "KINDS",
    "key_id_in",
    "load_signer",
    "save",
    "signer_for",
]


def load_signer(
    address: str, secrets: Secrets | None = None, *, allow_demo: bool = False
) -> Signer:
    """The signer at an address, ready to use; its key is on the policy list.

    ``secrets`` is asked by a sentence for a passphrase or PIN when one is needed.

    Raises:
        InvalidConfigError: no such kind of address. KeyUnreadableError,
        PassphraseError: the key cannot be used. RefusedError: its algorithm, or a demo
        key outside of a demo. MissingToolError: an extra is not installed.
    """
    kind, _, rest = address.partition(":")
    if kind not in KINDS:
        kind, rest = "file", address
    signer = KINDS[kind](rest, secrets)
    introduce(signer.public_key, allow_demo=allow_demo)
    return signer


def signer_for(private: PrivateKey, name: str | None, *, demo: bool = False) -> Signer:
    """A signer over a private key in memory.

    Raises:
        RefusedError: an algorithm that is not on the policy list.
    """
    try:
        key = SSlibKey.from_crypto(private.public_key())
        return CryptoSigner(private, labelled(key, name, demo=demo))
    except (ValueError, LibraryError) as error:
        raise RefusedError(f"a key that is not on the policy list: {error}") from error


def save(
    path: Path, private: PrivateKey, passphrase: str | None, *, demo: bool = False
) -> None:
    """Write a private key to a new file, mode 0600; an existing file is not touched.

    Raises:
        InvalidConfigError, SpaceError: it cannot be written.
    """
    raw = keyfile.seal(private, passphrase, demo=demo)
    write_atomic(path, raw, mode=0o600, replace=False)


def key_id_in(keys: Mapping[str, Key], key: Key) -> str | None:
    """Under which id a public key stands among ``keys``, if it does."""
    wanted = identity(key)
    for keyid, known in keys.items():
        if identity(known) == wanted:
            return keyid
    return None


def _file(rest: str, secrets: Secrets | None) -> Signer:
    path = Path(unquote(rest.removeprefix("//")) if "%" in rest else rest)
    raw = keyfile.read(path)
    private, demo = keyfile.load(raw, secrets, path.name)
    return signer_for(private, None, demo=demo)


def _token(rest: str, secrets: Secrets | None) -> Signer:
    from sealift.repo import token

    return token.open_signer(token.parse_uri(rest), secrets)


def _hsm(rest: str, secrets: Secrets | None) -> Signer:
    from sealift.repo import token

    return token.open_signer(token.parse_short(rest), secrets)


KINDS: dict[str, Callable[[str, Secrets | None], Signer]] = {
    "file": _file,
    "pkcs11": _token,
    "hsm": _hsm,
}
"""Kinds of addresses; a new one is a line here and a file of its own."""
