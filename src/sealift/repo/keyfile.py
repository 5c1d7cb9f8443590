"""Private keys in files: PKCS#8 PEM, encrypted with a passphrase or plain.

Encryption is PBES2 with scrypt (RFC 7914, section 7; N = 2^14, r = 8, p = 5) and
AES-256-CBC: standard PKCS#8 that OpenSSL reads as well. Our encoder exists because the
library writes PBKDF2 with 2048 rounds, which a stolen stick would not survive.

A file is opened only if it is a regular file, ours or root's, and closed to everybody
else; the check and the read use one descriptor.
"""

from __future__ import annotations

import base64
import os
import stat
import warnings
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sealift.core.errors import KeyUnreadableError, PassphraseError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["DEMO_LINE", "PrivateKey", "generate", "load", "read", "seal"]

PrivateKey = (
    ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey
)
DEMO_LINE = b"x-sealift-demo: true\n"
"""Stands before the PEM block of a demo key; PEM readers skip it."""
BYTES_MAX = 65_536
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5


def generate(algorithm: str) -> PrivateKey:
    """A new private key; ``algorithm`` is a name of ``policy.ALGORITHMS``.

    Raises:
        RefusedError: no such algorithm on the policy list.
    """
    match algorithm:
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ecdsa-p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ml-dsa-65":
            return mldsa.MLDSA65PrivateKey.generate()
    raise RefusedError(
        f"there is no algorithm {algorithm!r} on the policy list",
        hint="ed25519, ecdsa-p256 or ml-dsa-65",
    )


# ── bytes ────────────────────────────────────────────────────────────────────────────
def seal(private: PrivateKey, passphrase: str | None, *, demo: bool = False) -> bytes:
    """The file's bytes; without a passphrase the key stands there in the clear."""
    plain = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if passphrase is None:
        pem = _pem("PRIVATE KEY", plain)
    else:
        pem = _pem("ENCRYPTED PRIVATE KEY", _encrypted(plain, passphrase.encode()))
    return (DEMO_LINE if demo else b"") + pem


def load(
    raw: bytes, secrets: Callable[[str], str] | None, what: str
) -> tuple[PrivateKey, bool]:
    """The private key in a file's bytes, and whether it is marked as a demo key.

    ``what`` names the file in the question and in errors.

    Raises:
        PassphraseError: none to be had, or it is wrong. KeyUnreadableError: not a
            private key in PEM. RefusedError: of an algorithm not on the policy list.
    """
    demo = raw.startswith(DEMO_LINE)
    passphrase = None
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in raw:
        if secrets is None:
            raise PassphraseError(f"{what} is encrypted and no passphrase was given")
        passphrase = secrets(f"passphrase of {what}").encode()
    private = _opened(raw, passphrase, what)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        known = isinstance(private.curve, ec.SECP256R1)
    else:
        known = isinstance(private, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey)
    if not known:
        raise RefusedError(
            f"{what} holds a key of an algorithm that is not on the policy list",
            hint="ed25519, ecdsa-p256 or ml-dsa-65",
        )
    return private, demo


def locked(raw: bytes, passphrase: str, what: str) -> bytes:
    """A key file in the clear, of any algorithm, under a passphrase; marks stay.

    Raises:
        KeyUnreadableError: not a private key in the clear.
    """
    plain = _opened(raw, None, what).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    mark, _, _ = raw.partition(b"-----BEGIN ")
    return mark + _pem("ENCRYPTED PRIVATE KEY", _encrypted(plain, passphrase.encode()))


def unlocked(raw: bytes, passphrase: str, what: str) -> bytes:
    """What :func:`locked` was given.

    Raises:
        PassphraseError: it does not open.
    """
    plain = _opened(raw, passphrase.encode(), what).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    mark, _, _ = raw.partition(b"-----BEGIN ")
    return mark + _pem("PRIVATE KEY", plain)


def _opened(raw: bytes, passphrase: bytes | None, what: str) -> PrivateKey:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old algorithms; refused below
            return load_pem_private_key(raw, passphrase)  # type: ignore[return-value]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise PassphraseError(
                f"{what} does not open with this passphrase",
                hint="try again; nothing but the passphrase opens it",
            ) from error
        raise KeyUnreadableError(
            f"{what} is not a private key in PKCS#8 PEM",
            hint="make one with `sealift keys generate`",
        ) from error


# ── files ────────────────────────────────────────────────────────────────────────────
def read(path: Path) -> bytes:
    """The bytes of a private key file that nobody else can have read or changed.

    Raises:
        KeyUnreadableError: missing, not a regular file, another's, open to others, or
            too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise KeyUnreadableError(
            f"{path} cannot be opened: {error.strerror}",
            hint="a key file is a regular file, not a link; is the medium mounted?",
        ) from error
    try:
        _check_closed(path, os.fstat(descriptor))
        raw = os.read(descriptor, BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(raw) > BYTES_MAX:
        raise KeyUnreadableError(f"{path} is too large for a private key")
    return raw


def _check_closed(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyUnreadableError(f"{path} is not a regular file")
    if found.st_uid not in {0, os.geteuid()}:
        raise KeyUnreadableError(
            f"{path} belongs to another user", hint="a private key has one owner"
        )
    if found.st_mode & 0o077:
        raise KeyUnreadableError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others may open it",
            hint=f"chmod 600 {path}, and ask who could have read it",
        )


# ── PBES2 with scrypt, in DER ────────────────────────────────────────────────────────
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def _encrypted(plain: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo (RFC 5958, section 3)."""
    salt, iv = os.urandom(16), os.urandom(16)
    key = Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase)
    padder = PKCS7(128).padder()
    padded = padder.update(plain) + padder.finalize()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padded) + encryptor.finalize()
    parameters = _sequence(
        _octets(salt), _integer(SCRYPT_N), _integer(SCRYPT_R), _integer(SCRYPT_P)
    )
    kdf = _sequence(_SCRYPT, parameters)
    cipher = _sequence(_AES_256_CBC, _octets(iv))
    return _sequence(_sequence(_PBES2, _sequence(kdf, cipher)), _octets(sealed))


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _der(0x04, content)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _pem(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).replace(b"\n", b"")
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    head, foot = f"-----BEGIN {label}-----", f"-----END {label}-----"
    return b"\n".join([head.encode(), *lines, foot.encode(), b""])
