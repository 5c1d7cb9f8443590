"""Enrolling devices, and refusing what must not become one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealift.core.errors import (
    AuthRequiredError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RevokedError,
)
from sealift.server.services import identity
from tests.unit.server.world import OPERATOR, START, TestDevice, World


def test_certificate_is_what_the_design_says(world: World) -> None:
    """90 days, client authentication only, the device's id in name and URI."""
    wanted = TestDevice("dev-0001", {"dev-0001-main": "board"})
    found = identity.enrol(world.means, OPERATOR, wanted.wish())
    certificate = x509.load_pem_x509_certificate(found.certificate.pem.encode())
    assert certificate.not_valid_before_utc == START - timedelta(days=1)
    assert certificate.not_valid_after_utc == START + timedelta(days=90)
    assert certificate.subject.rfc4514_string() == "CN=dev-0001"
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [n.value for n in names] == ["sealift://default/dev-0001"]
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not basic.ca
    assert certificate.public_key() == wanted.tls_key.public_key()
    assert found.certificate.sha256 == certificate.fingerprint(hashes.SHA256()).hex()


def test_names_of_the_request_are_not_copied(world: World) -> None:
    """A request that calls itself another device gets the id it was registered for."""
    liar = TestDevice("dev-9999", {"e": "board"})
    wish = replace(liar.wish(), device_id="dev-0001")
    found = identity.enrol(world.means, OPERATOR, wish)
    certificate = x509.load_pem_x509_certificate(found.certificate.pem.encode())
    assert certificate.subject.rfc4514_string() == "CN=dev-0001"


def test_E07_existing_id_keeps_its_key(world: World) -> None:
    """A second enrolment under a known id is a conflict, also after revocation."""
    first = world.device()
    other = TestDevice(first.id, first.ecus)
    with pytest.raises(ConflictError):
        identity.enrol(world.means, OPERATOR, other.wish())
    identity.revoke(world.means, OPERATOR, first.id, "")
    with pytest.raises(ConflictError):
        identity.enrol(world.means, OPERATOR, other.wish())
    known = world.means.store.reader.devices.find(first.id)
    assert known is not None
    assert known.report_key["keyval"] == first.public["keyval"]


def test_E08_report_key_of_another_identity(world: World) -> None:
    """One report key, one identity for ever."""
    first = world.device()
    second = TestDevice("dev-0002", {"e": "board"}, report_key=first.report_key)
    with pytest.raises(InvalidInputError, match="another identity"):
        identity.enrol(world.means, OPERATOR, second.wish())


@pytest.mark.parametrize(
    ("sentence", "key"),
    [
        ("a point of small order", {"public": "01" + "00" * 31}),
        ("not a point at all", {"public": "ff" * 32}),
        ("too short", {"public": "ab"}),
        ("not a text", {"public": 7}),
    ],
)
def test_E08_bad_report_key(world: World, sentence: str, key: object) -> None:
    """A weak or malformed report key is refused."""
    wish = TestDevice("dev-0001", {"e": "board"}).wish()
    bad = {"keytype": "ed25519", "scheme": "ed25519", "keyval": key}
    with pytest.raises(InvalidInputError):
        identity.enrol(world.means, OPERATOR, replace(wish, report_key=bad))


def csr(key: object) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.PEM)


def unproven() -> bytes:
    """A request whose signature was made by another key."""
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    honest = x509.load_pem_x509_csr(csr(mine)).public_bytes(serialization.Encoding.DER)
    foreign = x509.load_pem_x509_csr(csr(other)).public_bytes(
        serialization.Encoding.DER
    )
    head = honest.rindex(b"\x03")
    spki = mine.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    theirs = other.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert head
    forged = foreign.replace(theirs, spki)
    import base64

    text = base64.encodebytes(forged).decode()
    return (
        f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    ).encode()


@pytest.mark.parametrize(
    ("sentence", "request_pem"),
    [
        ("RSA", csr(rsa.generate_private_key(65537, 2048))),
        ("another curve", csr(ec.generate_private_key(ec.SECP384R1()))),
        ("no proof of possession", unproven()),
        ("no request at all", b"hello"),
        ("nothing", b""),
    ],
)
def test_E08_bad_request(world: World, sentence: str, request_pem: bytes) -> None:
    """A request without proof, or for a key of a wrong kind, gives no certificate."""
    wish = TestDevice("dev-0001", {"e": "board"}).wish()
    with pytest.raises(InvalidInputError):
        identity.enrol(world.means, OPERATOR, replace(wish, csr=request_pem))
    assert world.means.store.reader.devices.find("dev-0001") is None


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "a\n", "ü", "-a", "a" * 65])
def test_ids_are_plain(world: World, name: str) -> None:
    """An id that somebody could take for a path, option or markup is refused."""
    wish = TestDevice("dev-0001", {"e": "board"}).wish()
    with pytest.raises(InvalidInputError):
        identity.enrol(world.means, OPERATOR, replace(wish, device_id=name))


def test_caller_is_looked_up_by_certificate(world: World) -> None:
    """Active: known; revoked: refused by name; unknown: refused."""
    wish = TestDevice("dev-0001", {"e": "board"}).wish()
    found = identity.enrol(world.means, OPERATOR, wish)
    reader = world.means.store.reader
    assert identity.caller_of(reader, found.certificate.sha256).device_id == "dev-0001"
    with pytest.raises(AuthRequiredError):
        identity.caller_of(reader, "00" * 32)
    identity.revoke(world.means, OPERATOR, "dev-0001", "")
    with pytest.raises(RevokedError):
        identity.caller_of(reader, found.certificate.sha256)


def test_revoking_twice_changes_nothing(world: World) -> None:
    """The second time there is no event; an unknown device is not found."""
    world.device()
    identity.revoke(world.means, OPERATOR, "dev-0001", "")
    before = world.leaves()
    identity.revoke(world.means, OPERATOR, "dev-0001", "")
    assert world.leaves() == before
    with pytest.raises(NotFoundError):
        identity.revoke(world.means, OPERATOR, "dev-0002", "")
