"""HPKE as RFC 9180 has it: vectors, another implementation, and what must not open."""

from __future__ import annotations

import json
from hashlib import shake_128
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hpke as oracle
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sealift.core import hpke
from sealift.core.errors import DecryptError, KeyUnreadableError, MalformedError
from sealift.core.hpke import PrivateKey, Recipient, new_private, seal, unseal

VECTORS = Path(__file__).parents[2] / "vectors" / "hpke"
NAMES = {kem.number: name for name, kem in hpke.KEMS.items()}
KEMS = sorted(hpke.KEMS)
INFO = b"what it is for"
SECRET = bytes(range(32))
ORDER = hpke._P256_ORDER


def key(kem: str, byte: int = 1) -> PrivateKey:
    return PrivateKey(kem, bytes([byte] * 32))


def sealed(kem: str, *, info: bytes = INFO) -> bytes:
    return seal(kem, key(kem).public, SECRET, info, bytes([2] * 32))


def opened(kem: str, data: bytes, *, by: int = 1, info: bytes = INFO) -> bytes:
    own = key(kem, by)
    return unseal(kem, own.public, own.dh, data, info)


# ── vectors ──────────────────────────────────────────────────────────────────────────
def listed(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text())
    assert sorted(NAMES[vector["kem_id"]] for vector in found) == KEMS
    return found


def nonces(base: bytes, count: int) -> list[bytes]:
    number = int.from_bytes(base, "big")
    return [(number ^ k).to_bytes(12, "big") for k in range(count)]


@pytest.mark.parametrize("vector", listed("rfc9180-base"), ids=lambda v: v["suite"])
def test_every_value_of_rfc_9180_comes_out(vector: dict[str, Any]) -> None:
    """Shared secret, key, nonce and ciphertexts of both suites of appendix A."""
    kem = hpke.KEMS[NAMES[vector["kem_id"]]]
    hexed = {k: bytes.fromhex(v) for k, v in vector.items() if k[:2] in {"sk", "pk"}}
    sender = PrivateKey(kem.name, hexed["skEm"])
    recipient = PrivateKey(kem.name, hexed["skRm"])
    assert sender.public == hexed["pkEm"]
    assert recipient.public == hexed["pkRm"]
    for secret in (sender.dh(recipient.public), recipient.dh(sender.public)):
        shared = hpke._shared_secret(kem, secret, sender.public, recipient.public)
        assert shared.hex() == vector["shared_secret"]
    info = bytes.fromhex(vector["info"])
    key_, nonce = hpke._key_schedule(kem, shared, info, (vector["aead_id"], 16))
    assert (key_.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])
    for number, case in enumerate(vector["encryptions"]):
        found = AESGCM(key_).encrypt(
            nonces(nonce, number + 1)[number],
            bytes.fromhex(case["pt"]),
            bytes.fromhex(case["aad"]),
        )
        assert found.hex() == case["ct"]


class Draws:
    """The inputs of an accumulated vector: SHAKE128 of nothing, taken in order."""

    def __init__(self) -> None:
        self._bytes = shake_128().digest(1 << 20)
        self._at = 0

    def take(self) -> bytes:
        length = self._bytes[self._at]
        start = self._at + 1
        self._at = start + length
        return self._bytes[start : self._at]


@pytest.mark.parametrize("vector", listed("base-accumulated"), ids=lambda v: v["enc"])
def test_a_thousand_messages_of_our_suites_come_out(vector: dict[str, Any]) -> None:
    """AES-256-GCM, the cipher we use: the key of the recipient's side, all nonces."""
    kem = hpke.KEMS[NAMES[vector["kem_id"]]]
    recipient = PrivateKey(kem.name, bytes.fromhex(vector["skRm"]))
    enc = bytes.fromhex(vector["enc"])
    shared = hpke._shared_secret(kem, recipient.dh(enc), enc, recipient.public)
    key_, nonce = hpke._key_schedule(kem, shared, bytes.fromhex(vector["info"]))
    assert vector["aead_id"] == hpke._AES_256_GCM[0]
    draws, sink = Draws(), shake_128()
    for each in nonces(nonce, 1000):
        aad, plain = draws.take(), draws.take()
        sink.update(AESGCM(key_).encrypt(each, plain, aad))
    assert sink.hexdigest(16) == vector["encryptions_accumulated"]


# ── agreement with the recipe of cryptography ────────────────────────────────────────
def suite(kem: str) -> oracle.Suite:
    return oracle.Suite(
        {"x25519": oracle.KEM.X25519, "p256": oracle.KEM.P256}[kem],
        oracle.KDF.HKDF_SHA256,
        oracle.AEAD.AES_256_GCM,
    )


@pytest.mark.parametrize("kem", KEMS)
def test_the_recipe_of_cryptography_opens_ours_and_we_its(kem: str) -> None:
    own = key(kem)
    assert suite(kem).decrypt(sealed(kem), own._key, INFO) == SECRET
    theirs = suite(kem).encrypt(SECRET, own._key.public_key(), INFO)
    assert opened(kem, theirs) == SECRET


# ── refusals ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kem", KEMS)
def test_only_the_named_recipient_and_purpose_open(kem: str) -> None:
    """Another key, another info, and a kem that another key was wrapped by."""
    assert opened(kem, sealed(kem)) == SECRET
    with pytest.raises(DecryptError):
        opened(kem, sealed(kem), by=3)
    with pytest.raises(DecryptError):
        opened(kem, sealed(kem), info=INFO + b"!")
    other = next(name for name in KEMS if name != kem)
    with pytest.raises(DecryptError):
        opened(other, sealed(kem))


@pytest.mark.parametrize("kem", KEMS)
def test_every_flipped_bit_and_every_cut_is_refused(kem: str) -> None:
    """Even the top bit of an X25519 point, which the curve ignores: enc is hashed."""
    whole = sealed(kem)
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptError):
            opened(kem, bytes(changed))
    for length in range(len(whole)):
        with pytest.raises(DecryptError):
            opened(kem, whole[:length])
    with pytest.raises(DecryptError):
        opened(kem, whole + b"\0")


SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
OFF_CURVE = (b"\x04" + bytes([1]) * 64).hex()
COMPRESSED = "02" + key("p256").public[1:33].hex()


@pytest.mark.parametrize(
    ("kem", "public"),
    [
        *(("x25519", each) for each in SMALL_ORDER),
        ("p256", OFF_CURVE),
        ("p256", "04" + "00" * 64),
        # Hybrid, and compressed with something behind it: no second spellings.
        *(("p256", f"0{form}" + key("p256").public[1:].hex()) for form in (2, 3, 6, 7)),
    ],
)
def test_a_useless_point_is_no_recipient_and_opens_nothing(
    kem: str, public: str
) -> None:
    """RFC 9180, 7.1.4: zero secrets and points off the curve, on both sides."""
    with pytest.raises(MalformedError):
        Recipient.from_json({"kem": kem, "public": public})
    with pytest.raises(MalformedError):
        seal(kem, bytes.fromhex(public), SECRET, INFO, bytes([2] * 32))
    with pytest.raises(DecryptError):
        opened(kem, bytes.fromhex(public) + bytes(48))


def test_a_zero_secret_is_refused_from_hardware_that_computes_it() -> None:
    """The check is ours, not only that of the library behind ``dh``."""
    own = key("x25519")
    with pytest.raises(DecryptError, match="small order"):
        unseal("x25519", own.public, lambda enc: bytes(32), sealed("x25519"), INFO)


def test_hardware_is_never_given_a_point_off_the_curve() -> None:
    """An invalid point would let a key in a careless token leak bit by bit."""
    seen: list[bytes] = []

    def careless(enc: bytes) -> bytes:
        seen.append(enc)
        return bytes([1] * 32)

    with pytest.raises(DecryptError):
        unseal("p256", key("p256").public, careless, bytes.fromhex(OFF_CURVE) * 2, INFO)
    assert seen == []


@pytest.mark.parametrize(
    "public",
    [COMPRESSED, "", key("x25519").public.hex(), key("p256").public.hex().upper()],
)
def test_a_public_key_has_one_form(public: str) -> None:
    with pytest.raises(MalformedError):
        Recipient.from_json({"kem": "p256", "public": public})


def test_an_unknown_kem_is_refused_by_name() -> None:
    for attempt in (
        lambda: Recipient.from_json({"kem": "mlkem768-x25519", "public": "00"}),
        lambda: new_private("x448", bytes),
        lambda: PrivateKey("x448", bytes(32)),
        lambda: unseal("x448", b"", bytes, b"", b""),
    ):
        with pytest.raises(MalformedError):
            attempt()


# ── keys ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kem", KEMS)
def test_a_key_survives_its_file(kem: str) -> None:
    own = key(kem)
    again = PrivateKey.from_pem(own.pem())
    assert (again.kem, again.public) == (own.kem, own.public)
    assert Recipient.from_json(own.recipient.to_json()) == again.recipient


def pem_of(private: Any, locked: bytes = b"") -> bytes:
    how = BestAvailableEncryption(locked) if locked else NoEncryption()
    return bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(x25519.X25519PrivateKey.generate(), b"locked"),
    ],
    ids=["empty", "nonsense", "another curve", "encrypted"],
)
def test_another_file_is_no_decryption_key(pem: bytes) -> None:
    with pytest.raises(KeyUnreadableError):
        PrivateKey.from_pem(pem)


def test_a_fresh_p256_key_is_a_number_of_the_group() -> None:
    """What is drawn outside 1…n-1 is drawn again, never reduced."""
    draws = [bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x05" * 32]
    assert new_private("p256", lambda count: draws.pop(0)) == b"\x05" * 32
    assert new_private("x25519", lambda count: b"\xff" * count) == b"\xff" * 32
    for outside in (bytes(32), ORDER.to_bytes(32, "big"), bytes(31)):
        with pytest.raises(MalformedError):
            PrivateKey("p256", outside)
