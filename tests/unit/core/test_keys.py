"""A key is what it decodes to, and a threshold counts such keys."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner, SSlibKey

from sealift.core import keys
from sealift.core.errors import LimitError, MalformedError, SignatureError
from sealift.core.keys import Family, KeyRule, PublicKey, require_threshold, verify
from tests.maker import Key, key

VECTORS = Path(__file__).parents[2] / "vectors" / "wycheproof"
DATA = b'{"a":1}'


def pem(public: Any, *, compressed: bool = False) -> str:
    encoded: bytes = public.public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    if compressed:
        body = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        der = (
            bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + body
        )
        encoded = (
            b"-----BEGIN PUBLIC KEY-----\n"
            + base64.encodebytes(der)
            + b"-----END PUBLIC KEY-----\n"
        )
    return encoded.decode()


P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
LATTICE = mldsa.MLDSA65PrivateKey.generate()


# ── vectors ──────────────────────────────────────────────────────────────────────────
def groups(name: str) -> list[Any]:
    found = json.loads((VECTORS / f"{name}_test.json").read_text())
    listed: list[Any] = found["testGroups"]
    assert sum(len(g["tests"]) for g in listed) == found["numberOfTests"] > 20
    return listed


def lattice_pem(der: str) -> str:
    body = base64.encodebytes(bytes.fromhex(der)).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    ("file", "scheme", "public"),
    [
        ("ed25519", "ed25519", lambda g: g["pk"]),
        ("ecdsa_secp256r1_sha256", "ecdsa-sha2-nistp256", lambda g: g["publicKeyPem"]),
        (
            "mldsa_65_verify",
            "ml-dsa-65/1",
            lambda g: lattice_pem(g.get("publicKeyDer") or ""),
        ),
    ],
)
def test_every_wycheproof_verdict_is_ours(file: str, scheme: str, public: Any) -> None:
    """All valid signatures pass, all invalid ones are refused; none is merely
    acceptable. ML-DSA is tested below the hash that TUF puts in front of it.
    """
    wrong = []
    for group in groups(file):
        decoded = keys._decode(scheme, public(group))
        for test in group["tests"]:
            try:
                assert decoded is not None
                decoded.check(bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
                verdict = "valid"
            except (SignatureError, AssertionError):
                verdict = "invalid"
            if verdict != test["result"]:
                wrong.append((test["tcId"], test["comment"]))
    assert wrong == []


# ── agreement with securesystemslib ──────────────────────────────────────────────────
SIGNERS = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
    "ml-dsa": CryptoSigner.generate_mldsa,
}


@pytest.mark.parametrize("kind", SIGNERS)
def test_what_securesystemslib_signs_we_verify(kind: str) -> None:
    signer = SIGNERS[kind]()
    theirs = signer.public_key
    ours = PublicKey.from_json(theirs.to_dict())
    signature = bytes.fromhex(signer.sign(DATA).signature)
    assert verify(ours, signature, DATA) == ours.identity
    assert ours.key_id == theirs.keyid
    assert ours.to_json() == theirs.to_dict()
    with pytest.raises(SignatureError):
        verify(ours, signature, DATA + b" ")


@pytest.mark.parametrize("level", [44, 87])
def test_the_other_levels_of_ml_dsa_verify_too(level: int) -> None:
    private = getattr(mldsa, f"MLDSA{level}PrivateKey").generate()
    public = PublicKey("ml-dsa", f"ml-dsa-{level}/1", pem(private.public_key()))
    signature = private.sign(keys.signed_bytes(public.scheme, DATA))
    assert verify(public, signature, DATA)
    other = PublicKey("ml-dsa", "ml-dsa-65/1", public.public)
    with pytest.raises(SignatureError):
        verify(other, signature, DATA)


@pytest.mark.parametrize(
    ("curve", "hash_", "scheme"),
    [
        (ec.SECP384R1(), hashes.SHA384(), "ecdsa-sha2-nistp384"),
        (ec.SECP521R1(), hashes.SHA512(), "ecdsa-sha2-nistp521"),
    ],
)
def test_the_larger_curves_verify_too(curve: Any, hash_: Any, scheme: str) -> None:
    private = ec.generate_private_key(curve)
    public = PublicKey("ecdsa", scheme, pem(private.public_key()))
    assert verify(public, private.sign(DATA, ec.ECDSA(hash_)), DATA)


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_rsa_verifies_with_pss_and_each_hash(bits: int) -> None:
    hash_ = getattr(hashes, f"SHA{bits}")()
    pss = padding.PSS(padding.MGF1(hash_), padding.PSS.DIGEST_LENGTH)
    public = PublicKey("rsa", f"rsassa-pss-sha{bits}", pem(RSA.public_key()))
    signature = RSA.sign(DATA, pss, hash_)
    assert verify(public, signature, DATA)
    with pytest.raises(SignatureError):
        verify(public, signature[:-1], DATA)


# ── reading a key ────────────────────────────────────────────────────────────────────
GOOD = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00" * 32}}


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        GOOD | {"keytype": "hmac", "scheme": "hmac-sha256"},
        GOOD | {"keytype": "rsa"},
        GOOD | {"scheme": "ecdsa-sha2-nistp256"},
        GOOD | {"keytype": "rsa", "scheme": "rsa-pkcs1v15-sha256"},
        GOOD | {"keytype": "rsa", "scheme": "pgp+rsa-pkcsv1.5"},
        GOOD | {"keytype": ["ed25519"]},
        GOOD | {"keyval": "00"},
        GOOD | {"keyval": {}},
        GOOD | {"keyval": {"public": 7}},
        GOOD | {"keyval": {"private": "00"}},
    ],
)
def test_B13_what_is_no_public_key_we_verify_is_refused(found: object) -> None:
    with pytest.raises(MalformedError):
        PublicKey.from_json(found)


@pytest.mark.parametrize(
    ("length", "ok"), [(16_383, True), (16_384, True), (16_385, False)]
)
def test_the_text_of_a_key_is_capped(length: int, ok: bool) -> None:
    found = GOOD | {"keyval": {"public": "x" * length}}
    if ok:
        assert len(PublicKey.from_json(found).public) == length
    else:
        with pytest.raises(LimitError):
            PublicKey.from_json(found)


def test_the_old_key_type_of_ecdsa_is_read() -> None:
    old = PublicKey(
        "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", pem(P256.public_key())
    )
    assert PublicKey.from_json(old.to_json()) == old


def test_a_demo_key_says_so() -> None:
    found = GOOD | {"x-sealift-demo": True}
    assert PublicKey.from_json(found).demo
    assert PublicKey.from_json(found).to_json() == found
    assert not PublicKey.from_json(GOOD | {"x-sealift-demo": 1}).demo


# ── identity (B-01) ──────────────────────────────────────────────────────────────────
def test_B01_spelling_compression_and_scheme_do_not_make_a_second_key() -> None:
    raw = key("a").public.public
    assert (
        PublicKey("ed25519", "ed25519", raw.upper()).identity
        == key("a").public.identity
    )
    plain, small = pem(P256.public_key()), pem(P256.public_key(), compressed=True)
    assert plain != small
    curve = ("ecdsa", "ecdsa-sha2-nistp256")
    assert PublicKey(*curve, plain).identity == PublicKey(*curve, small).identity
    two = [
        PublicKey("rsa", f"rsassa-pss-sha{n}", pem(RSA.public_key()))
        for n in (256, 512)
    ]
    assert two[0].identity == two[1].identity


def test_different_keys_have_different_identities() -> None:
    assert key("a").public.identity != key("b").public.identity


@pytest.mark.parametrize(
    ("keytype", "scheme", "public"),
    [
        ("ed25519", "ed25519", "00" * 31),
        ("ed25519", "ed25519", "00" * 33),
        ("ed25519", "ed25519", "zz" * 32),
        ("ed25519", "ed25519", " " + "00" * 32),
        ("ed25519", "ed25519", pem(P256.public_key())),
        ("ecdsa", "ecdsa-sha2-nistp256", "04" + "00" * 64),
        ("ecdsa", "ecdsa-sha2-nistp384", pem(P256.public_key())),
        ("ecdsa", "ecdsa-sha2-nistp256", pem(RSA.public_key())),
        ("ecdsa", "ecdsa-sha2-nistp256", "\ud800"),
        ("rsa", "rsassa-pss-sha256", pem(P256.public_key())),
        (
            "rsa",
            "rsassa-pss-sha256",
            pem(rsa.generate_private_key(65537, 1024).public_key()),
        ),
        ("ml-dsa", "ml-dsa-44/1", pem(LATTICE.public_key())),
        ("ml-dsa", "ml-dsa-65/1", pem(P256.public_key())),
        ("ml-dsa", "ml-dsa-65/1", ""),
    ],
)
def test_B12_a_key_that_does_not_decode_verifies_nothing(
    keytype: str, scheme: str, public: str
) -> None:
    found = PublicKey(keytype, scheme, public)
    assert found.identity.startswith(b"undecoded")
    with pytest.raises(SignatureError):
        verify(found, b"\0" * 64, DATA)


# ── degenerate signatures and keys (B-10) ────────────────────────────────────────────
def torsion() -> list[bytes]:
    """Every encoding of a point of small order, by adding up, not from a table."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = a, b
        k = d * x1 * x2 * y1 * y2 % p
        x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, p) % p
        return x, (y1 * y2 + x1 * x2) * pow(1 - k, -1, p) % p

    y = (
        int.from_bytes(
            bytes.fromhex(
                "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
            ),
            "little",
        )
        % 2**255
    )
    xx = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
    x = pow(xx, (p + 3) // 8, p)
    if (x * x - xx) % p:
        x = x * pow(2, (p - 1) // 4, p) % p
    assert (x * x - xx) % p == 0
    point, points = (x, y), {(0, 1)}
    while point not in points:
        points.add(point)
        point = add(point, (x, y))
    assert len(points) == 8
    spelled = {
        (y_ + k * p) | (sign << 255)
        for _, y_ in points
        for k in (0, 1)
        for sign in (0, 1)
        if y_ + k * p < 2**255
    }
    return [n.to_bytes(32, "little") for n in sorted(spelled)]


@pytest.mark.parametrize("raw", torsion(), ids=bytes.hex)
def test_B10_a_key_of_small_order_verifies_nothing(raw: bytes) -> None:
    public = PublicKey("ed25519", "ed25519", raw.hex())
    forged = (1).to_bytes(32, "little") + bytes(32)
    for message in range(16):  # under such a key it fits every second message or so
        with pytest.raises(SignatureError):
            verify(public, forged, bytes([message]))


def test_B10_a_key_has_one_spelling_only() -> None:
    p = 2**255 - 19
    for y in (2, 18):
        raw = (y + p).to_bytes(32, "little")
        assert PublicKey("ed25519", "ed25519", raw.hex()).identity.startswith(
            b"undecoded"
        )


def der(r: int, s: int) -> bytes:
    def number(n: int) -> bytes:
        raw = n.to_bytes(n.bit_length() // 8 + 1, "big")
        return b"\x02" + bytes([len(raw)]) + raw

    body = number(r) + number(s)
    return b"\x30" + bytes([len(body)]) + body


N256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\0" * 64,
        b"\x30\x00",
        der(0, 0),
        der(0, 1),
        der(1, 0),
        der(N256, 1),
        der(1, N256),
        b"\x30\x80",
    ],
)
def test_B10_degenerate_ecdsa_signatures_are_refused(signature: bytes) -> None:
    public = PublicKey("ecdsa", "ecdsa-sha2-nistp256", pem(P256.public_key()))
    with pytest.raises(SignatureError):
        verify(public, signature, DATA)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_B10_an_ed25519_signature_has_64_bytes(length: int) -> None:
    good = bytes.fromhex(key("a").sign(DATA))
    with pytest.raises(SignatureError):
        verify(key("a").public, (good + good)[:length], DATA)


@pytest.mark.parametrize("signature", [b"", b"\0" * 3309, b"\0" * 64])
def test_B10_degenerate_ml_dsa_signatures_are_refused(signature: bytes) -> None:
    public = PublicKey("ml-dsa", "ml-dsa-65/1", pem(LATTICE.public_key()))
    with pytest.raises(SignatureError):
        verify(public, signature, DATA)


# ── thresholds ───────────────────────────────────────────────────────────────────────
def threshold(
    listed: dict[str, PublicKey], signatures: dict[str, str], **rule: int
) -> frozenset[bytes]:
    rules = KeyRule(tuple(listed), rule["threshold"], rule.get("min_per_family", 0))
    return require_threshold("targets", DATA, signatures, listed, rules)


def listed(*some: Key) -> dict[str, PublicKey]:
    return {k.id: k.public for k in some}


A, B, C = key("a"), key("b"), key("c")


def test_enough_distinct_keys_are_named() -> None:
    found = threshold(
        listed(A, B, C), {k.id: k.sign(DATA) for k in (A, C)}, threshold=2
    )
    assert found == {A.public.identity, C.public.identity}


@pytest.mark.parametrize("bad", ["", "00" * 64, "zz", "0", "ff" * 1000])
def test_a_bad_signature_beside_enough_good_ones_does_no_harm(bad: str) -> None:
    signatures = {A.id: bad, B.id: B.sign(DATA), "unknown": bad}
    assert threshold(listed(A, B), signatures, threshold=1)
    with pytest.raises(SignatureError) as caught:
        threshold(listed(A, B), signatures, threshold=2)
    assert caught.value.fields == {"role": "targets", "signed": 1, "threshold": 2}


def test_A01_no_signature_is_never_enough() -> None:
    with pytest.raises(SignatureError):
        threshold(listed(A), {}, threshold=1)


def test_B01_one_key_under_two_ids_counts_once() -> None:
    twins = {
        "one": A.public,
        "two": PublicKey("ed25519", "ed25519", A.public.public.upper()),
    }
    signatures = dict.fromkeys(twins, A.sign(DATA))
    assert threshold(twins, signatures, threshold=1)
    with pytest.raises(SignatureError):
        threshold(twins, signatures, threshold=2)


def test_a_key_id_without_a_key_is_passed_over() -> None:
    rule = KeyRule((A.id, "missing"), 1)
    signatures = {A.id: A.sign(DATA), "missing": A.sign(DATA)}
    assert require_threshold("x", DATA, signatures, listed(A), rule)


def test_a_key_not_listed_for_the_role_counts_nowhere() -> None:
    rule = KeyRule((A.id,), 1)
    with pytest.raises(SignatureError):
        require_threshold("x", DATA, {B.id: B.sign(DATA)}, listed(A, B), rule)


def test_no_more_signatures_are_checked_than_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = []
    real = keys.verify

    def counted(found: PublicKey, signature: bytes, data: bytes) -> bytes:
        checked.append(found)
        return real(found, signature, data)

    monkeypatch.setattr(keys, "verify", counted)
    many = [key(f"k{n}") for n in range(20)]
    threshold(listed(*many), {k.id: k.sign(DATA) for k in many}, threshold=3)
    assert len(checked) == 3


# ── hybrid roles (B-15) ──────────────────────────────────────────────────────────────
LATTICES = [mldsa.MLDSA65PrivateKey.generate() for _ in range(2)]


def hybrid(classical: int, lattice: int) -> tuple[dict[str, PublicKey], dict[str, str]]:
    both = listed(A, B, C)
    signatures = {k.id: k.sign(DATA) for k in (A, B, C)[:classical]}
    for number, private in enumerate(LATTICES):
        public = PublicKey("ml-dsa", "ml-dsa-65/1", pem(private.public_key()))
        both[f"lattice {number}"] = public
        if number < lattice:
            message = keys.signed_bytes(public.scheme, DATA)
            signatures[f"lattice {number}"] = private.sign(message).hex()
    return both, signatures


@pytest.mark.parametrize(
    ("classical", "lattice", "ok"),
    [
        (2, 2, True),
        (3, 1, False),
        (2, 1, False),
        (1, 2, False),
        (3, 0, False),
        (0, 2, False),
    ],
)
def test_B15_a_hybrid_role_needs_so_many_keys_of_each_family(
    classical: int, lattice: int, ok: bool
) -> None:
    both, signatures = hybrid(classical, lattice)
    if ok:
        assert len(threshold(both, signatures, threshold=4, min_per_family=2)) == 4
    else:
        with pytest.raises(SignatureError):
            threshold(both, signatures, threshold=3, min_per_family=2)


def test_B15_a_hybrid_role_without_a_second_family_never_verifies() -> None:
    signatures = {k.id: k.sign(DATA) for k in (A, B)}
    with pytest.raises(SignatureError, match="of each family"):
        threshold(listed(A, B), signatures, threshold=2, min_per_family=1)


def test_families_are_told_apart() -> None:
    assert A.public.family is Family.CLASSICAL
    assert PublicKey("ml-dsa", "ml-dsa-44/1", "").family is Family.POST_QUANTUM


CLASSIC_DEVICE = """
import sys
sys.modules["cryptography.hazmat.primitives.asymmetric.mldsa"] = None
from sealift.core.keys import KeyRule, PublicKey, require_threshold
from sealift.core.errors import SignatureError
key = PublicKey("ml-dsa", "ml-dsa-65/1", "-----BEGIN PUBLIC KEY-----")
classic = PublicKey("ed25519", "ed25519", "00")
try:
    require_threshold("root", b"", {}, {"a": classic}, KeyRule(("a",), 1))
except SignatureError as error:
    print(error.hint)
try:
    require_threshold("root", b"", {"a": "00"}, {"a": key}, KeyRule(("a",), 1))
except SignatureError as error:
    print(error.hint)
"""


def test_an_old_cryptography_says_what_it_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLASSIC_DEVICE],
        check=True,
        capture_output=True,
        text=True,
    )
    classic, hybrid = done.stdout.splitlines()
    assert classic == "None"
    assert "cryptography 48" in hybrid


def test_a_role_without_ml_dsa_gets_no_such_hint() -> None:
    with pytest.raises(SignatureError) as caught:
        threshold(listed(A), {}, threshold=1)
    assert caught.value.hint is None


def test_importing_and_reading_keys_does_not_load_cryptography() -> None:
    code = (
        "import sys, sealift.core.trust, sealift.core.uptane, sealift.agent.trust\n"
        "print(any(m.startswith('cryptography') for m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


def test_the_library_we_agree_with_still_has_its_names() -> None:
    assert issubclass(type(CryptoSigner.generate_ed25519().public_key), SSlibKey)
