"""Private keys in files: encrypted as the standard says, opened only if closed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sealift.core.errors import (
    InvalidConfigError,
    KeyFileError,
    KeyUnreadableError,
    PassphraseError,
    RefusedError,
)
from sealift.repo import keyfile
from sealift.repo.policy import ALGORITHMS, is_demo
from sealift.repo.signers import load_signer, save


def pem(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_encrypted_key_opens_with_its_passphrase_only(
    algorithm: str, tmp_path: Path
) -> None:
    """Every algorithm of the policy list, sealed, opened, and refused otherwise."""
    path = tmp_path / "key.pem"
    save(path, keyfile.generate(algorithm), "correct horse")
    asked: list[str] = []

    def answer(what: str) -> str:
        asked.append(what)
        return "correct horse"

    signer = load_signer(str(path), answer)
    assert signer.public_key.scheme == ALGORITHMS[algorithm].scheme
    assert asked == ["passphrase of key.pem"]
    with pytest.raises(PassphraseError):
        load_signer(str(path), lambda _: "battery staple")
    with pytest.raises(PassphraseError):
        load_signer(str(path))


def test_the_encryption_is_standard_pkcs8(tmp_path: Path) -> None:
    """The library and OpenSSL both open what we wrote: PBES2, scrypt, AES-256."""
    private = ed25519.Ed25519PrivateKey.generate()
    raw = keyfile.seal(private, "pass")
    opened = load_pem_private_key(raw, b"pass")
    assert isinstance(opened, ed25519.Ed25519PrivateKey)
    assert opened.private_bytes_raw() == private.private_bytes_raw()
    path = tmp_path / "key.pem"
    path.write_bytes(raw)
    shown = subprocess.run(
        ["openssl", "asn1parse", "-in", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(word in shown for word in ("PBES2", "scrypt", "aes-256-cbc", ":4000"))


def test_two_files_of_one_key_and_passphrase_differ() -> None:
    """Salt and initialisation vector are fresh each time."""
    private = ed25519.Ed25519PrivateKey.generate()
    assert keyfile.seal(private, "pass") != keyfile.seal(private, "pass")


def test_a_new_file_is_closed_and_never_overwrites(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, and an existing key stays."""
    path = tmp_path / "key.pem"
    known = os.umask(0)
    try:
        save(path, keyfile.generate("ed25519"), None)
    finally:
        os.umask(known)
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidConfigError):
        save(path, keyfile.generate("ed25519"), None)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["key.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_file_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    """Who might have read it might sign with it."""
    path = tmp_path / "key.pem"
    save(path, keyfile.generate("ed25519"), None)
    path.chmod(mode)
    with pytest.raises(KeyUnreadableError, match="others may open it"):
        load_signer(str(path))


def test_links_directories_and_missing_files_are_refused(tmp_path: Path) -> None:
    """A key file is a regular file under its own name."""
    path = tmp_path / "key.pem"
    save(path, keyfile.generate("ed25519"), None)
    link = tmp_path / "link.pem"
    link.symlink_to(path)
    for bad in (link, tmp_path, tmp_path / "missing.pem"):
        with pytest.raises(KeyUnreadableError):
            load_signer(str(bad))


# what is wrong → the file
BROKEN = {
    "empty": b"",
    "text": b"hello\n",
    "a public key": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "cut": keyfile.seal(keyfile.generate("ed25519"), None)[:-40],
    "not base64": b"-----BEGIN PRIVATE KEY-----\n****\n-----END PRIVATE KEY-----\n",
    "encrypted rubbish": b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"
    b"-----END ENCRYPTED PRIVATE KEY-----\n",
    "large": b"x" * 70_000,
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_are_refused(what: str, tmp_path: Path) -> None:
    """Whatever lies there, the answer is an error of ours."""
    path = tmp_path / "key.pem"
    path.write_bytes(BROKEN[what])
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        load_signer(str(path), lambda _: "x")


@pytest.mark.parametrize("bits", [1024, 3072])
def test_B12_rsa_is_refused(bits: int, tmp_path: Path) -> None:
    """RSA of any size stays outside of the policy list."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem(rsa.generate_private_key(65537, bits)))
    path.chmod(0o600)
    with pytest.raises(RefusedError):
        load_signer(str(path))


def test_B12_other_curves_are_refused(tmp_path: Path) -> None:
    """ECDSA means P-256."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem(ec.generate_private_key(ec.SECP384R1())))
    path.chmod(0o600)
    with pytest.raises(RefusedError):
        load_signer(str(path))


def test_B11_the_demo_mark_survives_in_the_file(tmp_path: Path) -> None:
    """A demo key's file says so, and its public half carries the mark."""
    path = tmp_path / "key.pem"
    save(path, keyfile.generate("ed25519"), "pass", demo=True)
    with pytest.raises(RefusedError):
        load_signer(str(path), lambda _: "pass")
    signer = load_signer(str(path), lambda _: "pass", allow_demo=True)
    assert is_demo(signer.public_key)
