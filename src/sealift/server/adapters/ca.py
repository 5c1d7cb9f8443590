"""Certificates: the authority devices belong to, and the server's own TLS names.

Two authorities that never meet: the device CA signs client certificates only, the TLS
CA signs the server's certificate only (design page ``crypto-and-identity.md``, 8.2).
All keys are P-256, all signatures ECDSA with SHA-256.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealift.core.errors import InvalidInputError, KeyUnreadableError
from sealift.server.ports import Asked, Issued

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DeviceAuthority",
    "make_authority",
    "make_server_certificate",
    "new_key",
    "private_pem",
    "read_certificate",
    "read_key",
]

DEVICE_LIFETIME = timedelta(days=90)
SERVER_LIFETIME = timedelta(days=365)
AUTHORITY_LIFETIME = timedelta(days=20 * 365)
BACKDATED = timedelta(days=1)
"""A fresh certificate is valid a day ago already: device clocks are slow."""

_DER = serialization.Encoding.DER

Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class DeviceAuthority:
    """The CA devices belong to, with its key at hand."""

    certificate: x509.Certificate
    key: Key
    tenant: str = "default"

    def asked(self, csr: bytes) -> Asked:
        """Who a request says it is, and its key.

        Raises:
            InvalidInputError: as :meth:`issue`.
        """
        request, public = _requested(csr)
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return Asked(tuple(str(name.value) for name in names), _digest(public))

    def chain(self) -> bytes:
        """This authority's certificate as PKCS #7 without signers (RFC 7030, 4.1.3)."""
        return pkcs7.serialize_certificates([self.certificate], _DER)

    def bundled(self, pem: str) -> bytes:
        """A certificate in the same form (RFC 7030, 4.2.3)."""
        found = x509.load_pem_x509_certificate(pem.encode())
        return pkcs7.serialize_certificates([found], _DER)

    def issue(self, device_id: str, csr: bytes, now: datetime) -> Issued:
        """A client certificate over 90 days for the key in the request, PEM or DER.

        Raises:
            InvalidInputError: malformed, no proof of possession, or a key that is
                neither P-256 nor Ed25519 (E-08).
        """
        _, public = _requested(csr)
        uri = f"sealift://{self.tenant}/{device_id}"
        certificate = (
            _builder(device_id, self.certificate.subject, public, now, DEVICE_LIFETIME)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]),
                critical=False,
            )
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self.key.public_key()
                ),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            pem=_pem(certificate),
            sha256=certificate.fingerprint(hashes.SHA256()).hex(),
            serial=format(certificate.serial_number, "x"),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            key_sha256=_digest(public),
        )


def new_key() -> Key:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_authority(name: str, key: Key, now: datetime) -> x509.Certificate:
    """A self-signed CA certificate over 20 years, for end certificates only."""
    subject = _name(name)
    return (
        _builder(name, subject, key.public_key(), now, AUTHORITY_LIFETIME, ca=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def make_server_certificate(
    names: Sequence[str],
    key: Key,
    authority: x509.Certificate,
    authority_key: Key,
    now: datetime,
) -> x509.Certificate:
    """A TLS server certificate over a year for the given names and addresses."""
    return (
        _builder(names[0], authority.subject, key.public_key(), now, SERVER_LIFETIME)
        .add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]),
            critical=False,
        )
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority_key.public_key()
            ),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def private_pem(key: Key | ed25519.Ed25519PrivateKey) -> bytes:
    """A private key as PKCS #8, PEM, not encrypted: the file's mode guards it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(pem: bytes) -> Key:
    """A P-256 private key.

    Raises:
        KeyUnreadableError: it is not one.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnreadableError(f"not a private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyUnreadableError("the private key is not on P-256")
    return key


def read_certificate(pem: bytes) -> x509.Certificate:
    """A certificate.

    Raises:
        KeyUnreadableError: it is not one.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise KeyUnreadableError(f"not a certificate: {error}") from error


def _digest(public: PublicKey) -> str:
    """Lower hex SHA-256 of a public key, DER."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(_DER, form)).hexdigest()


def _requested(csr: bytes) -> tuple[x509.CertificateSigningRequest, PublicKey]:
    try:
        is_pem = csr.lstrip().startswith(b"-----")
        read = x509.load_pem_x509_csr if is_pem else x509.load_der_x509_csr
        request = read(csr)
        proven = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidInputError(
            "the certificate request cannot be read", hint="PKCS #10, PEM or DER"
        ) from error
    if not proven:
        raise InvalidInputError("the certificate request is not signed by its own key")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return request, key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return request, key
    raise InvalidInputError("a device's TLS key is on P-256 or Ed25519")


def _builder(
    common_name: str,
    issuer: x509.Name,
    public: PublicKey,
    now: datetime,
    lifetime: timedelta,
    *,
    ca: bool = False,
) -> x509.CertificateBuilder:
    start = now.astimezone(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + lifetime)
        .add_extension(
            x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True
        )
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
