"""Who the device is: keys, certificate and anchors, and what is refused of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from sealift.agent import config as agent_config
from sealift.agent import identity, settings
from sealift.agent.keyfile import FileKey, decryption_key
from sealift.core import canonical
from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    SealiftError,
    TrustAnchorError,
)
from sealift.core.hpke import KEMS, PrivateKey
from sealift.sim.device import Image, Kind

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem(key: Key, passphrase: bytes | None = None) -> bytes:
    lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


def private(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "device"
    found.mkdir(mode=0o700)
    (found / "anchors").mkdir(mode=0o700)
    (found / "keys").mkdir(mode=0o700)
    return found


@pytest.fixture
def config(place: Path) -> agent_config.Config:
    return agent_config.parse(settings.example().encode(), str(place / "agent.toml"))


# ── report key ───────────────────────────────────────────────────────────────────────
def test_ed25519_key_signs_and_names_itself(place: Path) -> None:
    """The signature verifies; the key id is the digest of the canonical key object."""
    key = ed25519.Ed25519PrivateKey.generate()
    found = FileKey(private(place / "k", pem(key)))
    key.public_key().verify(found.sign(b"report"), b"report")
    expected = hashlib.sha256(canonical.encode(dict(found.public()))).hexdigest()
    assert found.key_id == expected
    assert found.public()["keytype"] == "ed25519"


def test_p256_key_signs(place: Path) -> None:
    """ECDSA P-256 with SHA-256, the form the server verifies."""
    key = ec.generate_private_key(ec.SECP256R1())
    found = FileKey(private(place / "k", pem(key)))
    signature = found.sign(b"report")
    key.public_key().verify(signature, b"report", ec.ECDSA(hashes.SHA256()))
    assert found.public()["scheme"] == "ecdsa-sha2-nistp256"


@pytest.mark.parametrize(
    "data",
    [
        b"no key at all",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ed25519.Ed25519PrivateKey.generate(), b"secret"),
    ],
    ids=["garbage", "other curve", "rsa", "encrypted"],
)
def test_unusable_report_key_is_key_unreadable(place: Path, data: bytes) -> None:
    """Another kind of key, no key, a locked key: `key.unreadable`."""
    with pytest.raises(KeyUnreadableError) as caught:
        FileKey(private(place / "k", data))
    assert caught.value.code == "key.unreadable"


def test_missing_report_key_is_key_unreadable(place: Path) -> None:
    """A missing file names itself and the reason."""
    with pytest.raises(KeyUnreadableError, match="No such file"):
        FileKey(str(place / "missing"))


def test_d10_readable_report_key_is_device_trust(place: Path) -> None:
    """A key that others may read is refused, with the command that repairs it."""
    path = private(place / "k", pem(ed25519.Ed25519PrivateKey.generate()))
    Path(path).chmod(0o640)
    with pytest.raises(TrustAnchorError) as caught:
        FileKey(path)
    assert caught.value.hint == f"chmod 600 {path}"


# ── decryption key ───────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kem", sorted(KEMS))
def test_a_decryption_key_is_read_from_its_file(place: Path, kem: str) -> None:
    """X25519 and P-256; the key that was written is the key that agrees."""
    made = PrivateKey(kem, bytes([7] * 32))
    found = decryption_key(private(place / "k", made.pem()))
    assert (found.kem, found.recipient) == (kem, made.recipient)


@pytest.mark.parametrize(
    "data",
    [b"no key at all", pem(ed25519.Ed25519PrivateKey.generate())],
    ids=["garbage", "ed25519"],
)
def test_unusable_decryption_key_is_key_unreadable(place: Path, data: bytes) -> None:
    """A key for signing, or none: the message names the file."""
    with pytest.raises(KeyUnreadableError, match=str(place / "k")):
        decryption_key(private(place / "k", data))


def test_a_device_without_decryption_key_says_how_to_get_one() -> None:
    """Sealed images cannot be installed there, and the hint says why."""
    with pytest.raises(KeyUnreadableError) as caught:
        decryption_key("")
    assert "provision" in str(caught.value.hint)


def test_d10_readable_decryption_key_is_device_trust(place: Path) -> None:
    """Whoever can read it can read every image wrapped to it."""
    path = private(place / "k", PrivateKey("x25519", bytes([7] * 32)).pem())
    Path(path).chmod(0o644)
    with pytest.raises(TrustAnchorError):
        decryption_key(path)
    Path(path).rename(place / "real")
    Path(path).symlink_to(place / "real")
    with pytest.raises(TrustAnchorError):
        decryption_key(path)


# ── trust anchors ────────────────────────────────────────────────────────────────────
def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    replaced(path, b"")


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def endless(path: Path) -> None:
    replaced(path, bytes(300_000))


def replaced(path: Path, data: bytes) -> None:
    """Other bytes under the same name and mode; the file itself is read-only."""
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o444)


def swappable(path: Path) -> None:
    path.parent.chmod(0o777)


SPOILS = [remove, empty, open_to_all, link, directory, fifo, endless, swappable]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("which", ["image", "director"])
def test_b14_spoilt_trust_anchor_is_device_trust(
    config: agent_config.Config, which: str, spoil: Callable[[Path], None]
) -> None:
    """However the trust anchor is spoilt: `device.trust`, never "no verification"."""
    for path in (config.image_root, config.director_root):
        Path(path).write_bytes(b"{}")
        Path(path).chmod(0o444)
    assert identity.anchors(config) == identity.Anchors(b"{}", b"{}")
    spoil(Path(getattr(config, f"{which}_root")))
    with pytest.raises(TrustAnchorError) as caught:
        identity.anchors(config)
    assert caught.value.code == "device.trust"


# ── TLS files ────────────────────────────────────────────────────────────────────────
def certified(config: agent_config.Config) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-0001")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    private(Path(config.server.certificate), made.public_bytes(Encoding.PEM))
    private(Path(config.server.ca), made.public_bytes(Encoding.PEM))
    private(Path(config.server.key), pem(key))


def test_certificate_facts(config: agent_config.Config) -> None:
    """Subject and dates are read, and a sentence warns before and after they end."""
    certified(config)
    identity.check_tls_files(config)
    found = identity.certificate(config)
    assert found.subject == "CN=dev-0001"
    remarks = {
        days: found.remark(NOW + timedelta(days=days)) for days in (-1, 10, 80, 91)
    }
    assert remarks[10] is None
    assert "valid only from 2026-06-01" in str(remarks[-1])
    assert "expires in 10 days" in str(remarks[80])
    assert "expired on 2026-08-30" in str(remarks[91])


@pytest.mark.parametrize(
    ("which", "error"),
    [
        ("ca", InvalidConfigError),
        ("certificate", InvalidConfigError),
        ("key", KeyUnreadableError),
    ],
)
def test_missing_tls_file_is_named(
    config: agent_config.Config, which: str, error: type[SealiftError]
) -> None:
    """Each missing TLS file has its code and its name in the message."""
    certified(config)
    path = Path(getattr(config.server, which))
    path.unlink()
    with pytest.raises(error, match=path.name):
        identity.check_tls_files(config)


def test_garbage_certificate_is_config_invalid(config: agent_config.Config) -> None:
    """A file that holds no certificate is named."""
    certified(config)
    Path(config.server.certificate).write_bytes(b"-----BEGIN NONSENSE-----")
    with pytest.raises(InvalidConfigError, match="holds no certificate"):
        identity.certificate(config)


# ── factory image ────────────────────────────────────────────────────────────────────
def made_with(place: Path, data: bytes | None) -> agent_config.Component:
    """The component of a device whose factory image is said to be this."""
    if data is not None:
        private(place / "factory.json", data)
    text = settings.example().replace('factory = ""', 'factory = "factory.json"')
    return agent_config.parse(text.encode(), str(place / "agent.toml")).components[0]


def described(**changed: object) -> bytes:
    artifact = Image.make(Kind.GOOD, "1.0", 1).artifact.to_json()
    return json.dumps(artifact | {"hardware_ids": ["demo-board-r1"]} | changed).encode()


def test_factory_image_is_read(place: Path, config: agent_config.Config) -> None:
    """An artifact as metadata has it; nothing where nothing is configured."""
    found = identity.factory_image(made_with(place, described()))
    assert found is not None
    assert (found.version, found.release_counter) == ("1.0", 1)
    assert identity.factory_image(config.components[0]) is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\xff{",
        b"[]",
        b"{}",
        described(sha256="00"),
        described(release_counter=-1),
        described(hardware_ids=["another-board"]),
        described(version="x" * 70_000),
    ],
    ids=[
        *("missing", "empty", "binary", "list", "nothing", "digest", "counter"),
        *("hardware", "long"),
    ],
)
def test_bad_factory_image_is_config_invalid(place: Path, data: bytes | None) -> None:
    """Missing, malformed, too long, or for other hardware: never half believed."""
    with pytest.raises(InvalidConfigError) as caught:
        identity.factory_image(made_with(place, data))
    assert "factory" in caught.value.message


def test_factory_image_of_anybody_is_not_believed(place: Path) -> None:
    """A file that others may write, or a link to one, is device.trust."""
    part = made_with(place, described())
    Path(part.factory).chmod(0o666)
    with pytest.raises(TrustAnchorError, match="open to other users"):
        identity.factory_image(part)
    Path(part.factory).chmod(0o600)
    Path(part.factory).rename(place / "real")
    Path(part.factory).symlink_to(place / "real")
    with pytest.raises(TrustAnchorError, match="symbolic link"):
        identity.factory_image(part)
