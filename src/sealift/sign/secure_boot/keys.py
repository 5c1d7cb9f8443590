"""Keys of the boot chain: made, lent to the tools, and never those of a role (B-03).

A key is a private half, in a PEM file or on a PKCS#11 token, and a certificate in a PEM
file. Firmware and U-Boot take RSA, so that is what is made here: 2048 bits, which is
what all of them take.

A tool gets a key from a file as a file of its memory, decrypted only there; from a
token it gets nothing: OpenSSL's ``pkcs11`` engine asks the token to sign, and its
settings, with the PIN in them, are a file of memory as well.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_from_bytes

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.signer import SSlibKey

from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    MalformedError,
    PassphraseError,
    RefusedError,
)
from sealift.repo import keyfile, policy, token
from sealift.repo.files import make_directory, read_bounded, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import (
        PrivateKeyTypes,
        PublicKeyTypes,
    )

    from sealift.sign.desk import Desk
    from sealift.sign.secure_boot.tools import Tools

    Secrets = Callable[[str], str]

__all__ = [
    "Lent",
    "SigningKey",
    "fingerprint",
    "in_memory",
    "lend",
    "load_private",
    "make",
    "read_certificate",
    "refuse_role_key",
    "rsa_key",
]

BITS: Final = 2048
YEARS: Final = 20
"""Firmware looks at no clock, so a certificate's end stops nobody; tools may."""
CERTIFICATE_MAX: Final = 1 << 16
ENGINE: Final = ("engines-3/pkcs11.so", "libengine-pkcs11-openssl")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """``private`` is a PEM file, or ``pkcs11:…`` (RFC 7512) with the module's path."""

    private: str
    certificate: Path

    @property
    def on_token(self) -> bool:
        """Whether the private half is on a token."""
        return self.private.startswith("pkcs11:")


@dataclass(frozen=True, slots=True)
class Lent:
    """A key as a tool is told of it, and what has to go along.

    ``address`` is the name of a file, or what the engine calls the key; ``label`` is
    its name on the token.
    """

    address: str
    engine: str | None = None
    label: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()


# ── making ───────────────────────────────────────────────────────────────────────────
def make(
    directory: Path, names: Sequence[str], now: datetime, *, dry_run: bool = False
) -> dict[str, str | None]:
    """New pairs ``NAME.key`` and ``NAME.crt``; the certificates' fingerprints by name.

    Raises:
        InvalidConfigError: one of them exists, or it cannot be written. RefusedError:
            a name that is no plain file name.
    """
    for name in names:
        if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 64:
            raise RefusedError(
                f"{name[:64]!r} cannot name a key", hint="letters, digits and -"
            )
        for suffix in (".key", ".crt"):
            if (directory / f"{name}{suffix}").exists():
                raise InvalidConfigError(
                    f"{directory / name}{suffix} exists already",
                    hint="keys are never replaced; choose another directory",
                )
    if dry_run:
        return dict.fromkeys(names)
    make_directory(directory)
    return {name: _make(directory, name, now) for name in names}


def _make(directory: Path, name: str, now: datetime) -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomic(directory / f"{name}.key", pem, mode=0o600, replace=False)
    public = certificate.public_bytes(Encoding.PEM)
    write_atomic(directory / f"{name}.crt", public, mode=0o644, replace=False)
    return fingerprint(certificate)


# ── judging ──────────────────────────────────────────────────────────────────────────
def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file.

    Raises:
        InvalidConfigError: none is there, or it cannot be read.
    """
    raw = read_bounded(path, CERTIFICATE_MAX)
    try:
        return x509.load_pem_x509_certificate(raw)
    except ValueError as error:
        raise InvalidConfigError(
            f"{path} holds no certificate in PEM",
            hint="sealift release secure-boot keys makes one",
        ) from error


def rsa_key(certificate: Path) -> rsa.RSAPublicKey:
    """The RSA key of a certificate.

    Raises:
        InvalidConfigError: it cannot be read. RefusedError: of another kind, or short.
    """
    public = read_certificate(certificate).public_key()
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < BITS:
        raise RefusedError(
            f"{certificate} is not of an RSA key of {BITS} bits or more",
            hint="firmware and U-Boot take nothing else",
        )
    return public


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def refuse_role_key(public: PublicKeyTypes, desk: Desk | None) -> None:
    """A key that signs boot files signs nothing else (B-03).

    Raises:
        RefusedError: a role of one of the desk's repositories has the same key.
    """
    if desk is None:
        return
    try:
        mine = policy.identity(SSlibKey.from_crypto(public))
    except (ValueError, LibraryError, MalformedError, UnsupportedAlgorithm):
        return  # of a kind no role can have
    for repository, root in desk.roots().items():
        for key in root.keys.values():
            if policy.identity(key) == mine:
                raise RefusedError(
                    f"this is the key {policy.name_of(key)} of the {repository} "
                    f"repository, which signs metadata",
                    hint="a boot chain has keys of its own: "
                    "sealift release secure-boot keys DIRECTORY",
                )


# ── lending ──────────────────────────────────────────────────────────────────────────
@contextmanager
def lend(key: SigningKey, tools: Tools, secrets: Secrets | None) -> Iterator[Lent]:
    """The key for as long as a tool needs it; it is the certificate's.

    ``secrets`` is asked by a sentence for a passphrase or PIN.

    Raises:
        KeyUnreadableError, PassphraseError: it cannot be used. RefusedError: not RSA of
        2048 bits or more, or not the certificate's. MissingToolError: no engine.
    """
    public = rsa_key(key.certificate)
    if key.on_token:
        with _from_token(key, tools, secrets) as lent:
            yield lent
        return
    private = load_private(Path(key.private), secrets)
    if _spki(private.public_key()) != _spki(public):
        raise RefusedError(f"{key.private} is not the key of {key.certificate}")
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with in_memory("key", pem) as descriptor:
        yield Lent(f"/proc/self/fd/{descriptor}", descriptors=(descriptor,))


def load_private(path: Path, secrets: Secrets | None) -> PrivateKeyTypes:
    """The private key in a PEM file that is closed to others, of any kind.

    Raises:
        KeyUnreadableError, PassphraseError: it cannot be used.
    """
    raw = keyfile.read(path)
    passphrase = None
    if b"ENCRYPTED" in raw:
        if secrets is None:
            raise PassphraseError(f"{path.name} has a passphrase, and none was given")
        passphrase = secrets(f"passphrase of {path.name}").encode()
    try:
        return load_pem_private_key(raw, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise PassphraseError(f"wrong passphrase for {path.name}") from error
        raise KeyUnreadableError(f"{path} holds no private key in PEM") from error


def _spki(public: PublicKeyTypes) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def _from_token(
    key: SigningKey, tools: Tools, secrets: Secrets | None
) -> Iterator[Lent]:
    address = token.parse_uri(key.private.partition(":")[2])
    engine = tools.library(*ENGINE)
    settings = _SETTINGS.format(
        engine=_escaped(engine),
        module=_escaped(address.module),
        pin=_escaped(token.pin_of(address, secrets)),
    )
    with in_memory("openssl.cnf", settings.encode()) as descriptor:
        try:
            yield Lent(
                _uri(address),
                engine="pkcs11",
                label=address.label,
                environment={"OPENSSL_CONF": f"/proc/self/fd/{descriptor}"},
                descriptors=(descriptor,),
            )
        except InvalidConfigError as error:
            if "Login" in error.message:
                raise PassphraseError(
                    f"{address.where} does not take this PIN",
                    hint="tokens lock after a few wrong ones: make sure before trying "
                    "again",
                ) from error
            raise


def _uri(address: token.Address) -> str:
    """The address without what only we need: where the module and the PIN are."""
    parts = {
        "token": quote(address.token, "") if address.token else None,
        "serial": quote(address.serial, "") if address.serial else None,
        "object": quote(address.label, "") if address.label else None,
        "id": quote_from_bytes(address.key_id, "") if address.key_id else None,
    }
    return "pkcs11:" + ";".join(f"{name}={one}" for name, one in parts.items() if one)


_SETTINGS: Final = """openssl_conf = all
[all]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = {engine}
MODULE_PATH = {module}
PIN = {pin}
init = 0
"""


def _escaped(value: str) -> str:
    if not value.isprintable():
        raise InvalidConfigError("a path or PIN with control characters")
    return "".join(c if c.isalnum() else f"\\{c}" for c in value)


@contextmanager
def in_memory(name: str, content: bytes) -> Iterator[int]:
    """A file that is in memory only and goes with its last descriptor."""
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)
