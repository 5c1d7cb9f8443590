"""Sealed payloads: vectors, another implementation, and every way to be cheated."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from hypothesis import given
from hypothesis import strategies as st

from sealift.core import encryption
from sealift.core.encryption import (
    CHUNK,
    PREFIX,
    TAG,
    Opener,
    Sealer,
    key_id,
    payload_context,
    plain_length,
    sealed_length,
    sealed_range,
    unwrap,
    upload_info,
    wrap,
    wrap_info,
)
from sealift.core.errors import (
    DecryptError,
    LengthError,
    MalformedError,
    RefusedError,
)
from sealift.core.hpke import PrivateKey

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests/vectors"
KEY = bytes(range(32))
SALT = bytes(range(24))
CONTEXT = payload_context(b"\x11" * 32, b"\x22" * 32)
SEALED_CHUNK = CHUNK + TAG
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 100_000]


def plain(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def sealed(data: bytes, *, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    sealer = Sealer(key, context, SALT)
    starts = range(0, len(data) + 1, CHUNK)  # 16 KiB are a full chunk and an empty one
    chunks = [sealer.seal(k, data[at : at + CHUNK]) for k, at in enumerate(starts)]
    return sealer.prefix + b"".join(chunks)


def opened(raw: bytes, *, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    opener = Opener(key, context, raw[:PREFIX], len(raw))
    return opener.open(0, raw[PREFIX:])


# ── vectors ──────────────────────────────────────────────────────────────────────────
def wycheproof() -> list[dict[str, Any]]:
    name = "wycheproof/c2sp_chunked_encryption_aes_256_gcm_test.json"
    found = json.loads((VECTORS / name).read_text())
    tests: list[dict[str, Any]] = found["testGroups"][0]["tests"]
    assert len(tests) == found["numberOfTests"] == 18
    return tests


@pytest.mark.parametrize("test", wycheproof(), ids=lambda test: test["comment"])
def test_every_wycheproof_verdict_is_ours(test: dict[str, Any]) -> None:
    """Valid files open to the last byte, invalid ones do not open as a whole."""
    raw = zlib.decompress(bytes.fromhex(test["ct"]))
    key, context = bytes.fromhex(test["key"]), bytes.fromhex(test["ctx"])
    if test["result"] == "valid":
        found = opened(raw, key=key, context=context)
        assert sha512(found).hexdigest() == test["msgSha512"]
        assert len(found) == test["msgLength"] == plain_length(len(raw))
    else:
        with pytest.raises((DecryptError, LengthError)):
            opened(raw, key=key, context=context)


KNOWN = json.loads((VECTORS / "sealift/known-answers.json").read_text())


def test_the_known_file_is_ours_byte_for_byte() -> None:
    known = {k: bytes.fromhex(v) for k, v in KNOWN["payload"].items() if k != "path"}
    sealer = Sealer(known["cek"], known["context"], known["salt"])
    raw = sealer.prefix + sealer.seal(0, known["plaintext"])
    assert raw == known["file"]
    assert opened(raw, key=known["cek"], context=known["context"]) == b"hello"


def test_the_known_wrap_is_ours_byte_for_byte() -> None:
    known = KNOWN["wrap"]
    public = bytes.fromhex(known["recipient_public"])
    info = wrap_info(
        known["tenant"],
        known["device"],
        known["ecu"],
        known["path"],
        bytes.fromhex(known["ciphertext_sha256"]),
        known["director_targets_version"],
    )
    assert info.hex() == known["info"]
    assert key_id("x25519", public) == known["kid"]
    data = wrap("x25519", public, KEY, info, bytes([2] * 32))
    assert data.hex() == known["data"]
    own = PrivateKey("x25519", bytes([1] * 32))
    assert unwrap("x25519", own.public, own.dh, data, info).hex() == known["cek"]


def documented() -> dict[str, str]:
    """The rows of "Known answers" in docs/formats.md: name → hex or text."""
    page = (ROOT / "docs/formats.md").read_text()
    section = page.split("### Known answers of sealed payloads\n")[1].split("\n#")[0]
    return dict(
        re.findall(r"^\| ([a-z0-9 ,-]+) \| `([^`]+)` \|$", section, re.MULTILINE)
    )


def test_the_known_answers_of_the_documentation_are_ours() -> None:
    """Each row of docs/formats.md, computed anew from the inputs it states."""
    raw = sealed(b"hello")
    digest = sha256(raw).digest()
    info = wrap_info("default", "dev-0001", "main", "fw/app.bin", digest, 7)
    upload = upload_info("fw/app.bin", digest)
    found = {
        "context": CONTEXT.hex(),
        "sealed file": raw.hex(),
        "digest of the sealed file": digest.hex(),
        "info of the device": info.hex(),
        "info of the upload": upload.hex(),
    }
    for kem in ("x25519", "p256"):
        own = PrivateKey(kem, bytes([1] * 32))
        found[f"{kem} public key"] = own.public.hex()
        found[f"{kem} kid"] = key_id(kem, own.public)
        for name, purpose in (("wrap", info), ("upload wrap", upload)):
            data = wrap(kem, own.public, KEY, purpose, bytes([2] * 32))
            found[f"{kem} {name}"] = data.hex()
    assert documented() == found


# ── agreement with the recipe of cryptography ────────────────────────────────────────
@pytest.mark.parametrize("length", SIZES)
def test_the_recipe_of_cryptography_opens_ours_and_we_its(length: int) -> None:
    """Both directions, sizes around the borders of chunks; lengths as computed."""
    data = plain(length)
    raw = sealed(data)
    assert len(raw) == sealed_length(length)
    theirs = Cobblestone256Decryptor(KEY, CONTEXT)
    assert theirs.update(raw) + theirs.finalize() == data
    encryptor = Cobblestone256Encryptor(KEY, CONTEXT)
    made = encryptor.update(data) + encryptor.finalize()
    assert len(made) == len(raw)
    assert opened(made) == data


def test_the_known_sizes_are_ours() -> None:
    """Seven lengths, each with the context those answers were made with."""
    path = KNOWN["payload"]["path"].encode()
    for each in KNOWN["payload_sizes"]:
        data = plain(each["length"])
        named = b"sealift/payload/v1\0" + len(path).to_bytes(2, "big") + path
        context = named + sha256(data).digest() + len(data).to_bytes(8, "big")
        raw = sealed(data, context=context)
        assert len(raw) == each["file_length"]
        assert sha256(raw).hexdigest() == each["file_sha256"]


# ── ranges ───────────────────────────────────────────────────────────────────────────
@given(data=st.data(), length=st.integers(1, 5 * CHUNK))
def test_any_range_opens_alone(data: st.DataObject, length: int) -> None:
    """A range of the file gives exactly the bytes asked for, at most 32 KiB more."""
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    raw = sealed(plain(length))
    first, last = sealed_range(start, stop, length)
    assert PREFIX <= first < last <= len(raw)
    opener = Opener(KEY, CONTEXT, raw[:PREFIX], len(raw))
    found = opener.open(start // CHUNK, raw[first:last])
    skipped = start % CHUNK
    assert found[skipped : skipped + stop - start] == plain(length)[start:stop]
    assert last - first <= stop - start + 2 * SEALED_CHUNK


@pytest.mark.parametrize("index", [255, 256, (1 << 18) - 1, 1 << 18, (1 << 38) - 1])
def test_the_last_chunk_opens_wherever_it_lies(index: int) -> None:
    """Beyond 4 GiB and up to the last there can be; at another place it does not."""
    data = plain(100)
    chunks = encryption._Chunks(KEY, CONTEXT, SALT)
    chunk = chunks.cipher.encrypt(chunks.nonce(index), data, None)
    length = sealed_length(index * CHUNK + len(data))
    opener = Opener(KEY, CONTEXT, SALT + chunks.commitment, length)
    assert opener.open(index, chunk) == data
    shorter = sealed_length((index - 1) * CHUNK + len(data))
    moved = Opener(KEY, CONTEXT, SALT + chunks.commitment, shorter)
    with pytest.raises(DecryptError):
        moved.open(index - 1, chunk)


@given(length=st.integers(0, 2**40))
def test_lengths_map_back_and_forth(length: int) -> None:
    assert plain_length(sealed_length(length)) == length


def test_lengths_no_file_has_are_refused() -> None:
    """Shorter than an empty file, or with a last chunk shorter than its tag."""
    possible = {sealed_length(n) for n in range(3 * CHUNK)}
    for length in range(-1, max(possible) + 1):
        if length in possible:
            assert sealed_length(plain_length(length)) == length
            continue
        with pytest.raises(LengthError):
            plain_length(length)
    with pytest.raises(LengthError):
        plain_length(PREFIX + (SEALED_CHUNK << 38) + TAG)  # more chunks than there are


@pytest.mark.parametrize("bounds", [(-1, 5), (0, 0), (3, 2), (0, 101), (100, 101)])
def test_a_range_outside_is_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(LengthError):
        sealed_range(*bounds, 100)


# ── attacks ──────────────────────────────────────────────────────────────────────────
THREE = sealed(plain(2 * CHUNK + 100))
CHUNKS = [
    THREE[PREFIX : PREFIX + SEALED_CHUNK],
    THREE[PREFIX + SEALED_CHUNK : PREFIX + 2 * SEALED_CHUNK],
    THREE[PREFIX + 2 * SEALED_CHUNK :],
]


def rebuilt(*order: int) -> bytes:
    return THREE[:PREFIX] + b"".join(CHUNKS[k] for k in order)


@pytest.mark.parametrize(
    "order",
    [(1, 0, 2), (0, 2), (1, 2), (2,), (0, 0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2), (0, 1)],
    ids=str,
)
def test_chunks_swapped_dropped_or_doubled_do_not_open(order: tuple[int, ...]) -> None:
    with pytest.raises((DecryptError, LengthError)):
        opened(rebuilt(*order))


@pytest.mark.parametrize(
    "at",
    [0, 23, 24, 55, 56, PREFIX + CHUNK, PREFIX + SEALED_CHUNK, len(THREE) - 1],
    ids=["salt", "salt end", "commitment", "commitment end", "first chunk", "its tag",
         "second chunk", "last tag"],
)  # fmt: skip
def test_a_flipped_bit_anywhere_is_refused(at: int) -> None:
    changed = bytearray(THREE)
    changed[at] ^= 1
    with pytest.raises(DecryptError):
        opened(bytes(changed))


def test_every_flipped_bit_of_a_short_file_is_refused() -> None:
    raw = sealed(b"hello")
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptError):
            opened(bytes(changed))


EMPTY_END = sealed(plain(2 * CHUNK))
"""Two full chunks and an empty one: the last 16 bytes are only a tag."""


@pytest.mark.parametrize(
    "length",
    [0, 10, 24, 40, 55, 56, 60, 71, PREFIX + 100, PREFIX + CHUNK + 8,
     PREFIX + SEALED_CHUNK, PREFIX + SEALED_CHUNK + 15, PREFIX + SEALED_CHUNK + 16,
     PREFIX + 2 * SEALED_CHUNK, PREFIX + 2 * SEALED_CHUNK + 15],
)  # fmt: skip
def test_a_cut_of_every_kind_is_refused(length: int) -> None:
    """In salt, commitment, chunk, tag, at a chunk border, in the last empty chunk."""
    with pytest.raises((DecryptError, LengthError)):
        opened(EMPTY_END[:length])


def test_a_cut_file_does_not_pass_by_its_true_length() -> None:
    """The signed length says three chunks; two of them are not the end."""
    opener = Opener(KEY, CONTEXT, EMPTY_END[:PREFIX], len(EMPTY_END))
    assert opener.open(0, EMPTY_END[PREFIX : PREFIX + 2 * SEALED_CHUNK])
    assert opener.open(2, EMPTY_END[PREFIX + 2 * SEALED_CHUNK :]) == b""
    with pytest.raises(DecryptError):
        opener.open(2, b"")


def test_a_longer_file_cannot_be_passed_off_for_its_start() -> None:
    """A full chunk is no last chunk, whatever length is signed."""
    opener = Opener(KEY, CONTEXT, THREE[:PREFIX], sealed_length(CHUNK - 1))
    with pytest.raises(DecryptError):
        opener.open(0, CHUNKS[0])
    with pytest.raises(DecryptError):
        opener.open(0, CHUNKS[0][:-1])


@pytest.mark.parametrize(
    "cut", [slice(1, None), slice(0, -1), slice(0, 100), slice(0, 0)], ids=str
)
@pytest.mark.parametrize("first", [-1, 0, 1, 2, 3])
def test_only_whole_chunks_at_their_own_place_open(first: int, cut: slice) -> None:
    opener = Opener(KEY, CONTEXT, THREE[:PREFIX], len(THREE))
    for k, chunk in enumerate(CHUNKS):
        with pytest.raises(DecryptError):
            opener.open(first, chunk[cut])
        if first != k:
            with pytest.raises(DecryptError):
                opener.open(first, chunk)


@pytest.mark.parametrize(
    "context",
    [
        payload_context(b"\x12" * 32, b"\x22" * 32),
        payload_context(b"\x11" * 32, b"\x23" * 32),
        b"",
    ],
    ids=["another image", "another head", "none"],
)
def test_a_file_cannot_be_relabelled(context: bytes) -> None:
    with pytest.raises(DecryptError, match="not sealed with this key"):
        opened(THREE, context=context)


@pytest.mark.parametrize("key", [b"\0" * 32, KEY[:31], KEY + b"\0", b""], ids=len)
def test_another_key_shows_before_any_chunk(key: bytes) -> None:
    """The commitment: one file cannot open under two keys to two contents."""
    with pytest.raises(DecryptError):
        Opener(key, CONTEXT, THREE[:PREFIX], len(THREE))


def test_a_nonce_is_never_used_twice() -> None:
    """A chunk again, one skipped, one after the short one, one too long."""
    for steps in (
        [(0, CHUNK), (0, CHUNK)],
        [(1, 5)],
        [(0, 5), (1, 5)],
        [(0, CHUNK + 1)],
    ):
        sealer = Sealer(KEY, CONTEXT, SALT)
        with pytest.raises(RefusedError):
            for index, length in steps:
                sealer.seal(index, bytes(length))


def test_a_holder_of_the_key_can_seal_anything() -> None:
    """Sealing vouches for nothing: what a forged chunk says falls at its digest."""
    assert opened(sealed(b"forged by a device that holds the key")).startswith(
        b"forged"
    )


# ── wraps ────────────────────────────────────────────────────────────────────────────
DIGEST = sha256(THREE).digest()
NAMED: dict[str, Any] = {
    "tenant": "default",
    "device_id": "dev-1",
    "ecu_id": "main",
    "path": "fw/app.bin",
    "sealed_sha256": DIGEST,
    "director_version": 7,
}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("tenant", "acme"),
        ("device_id", "dev-2"),
        ("ecu_id", "second"),
        ("path", "fw/app2.bin"),
        ("sealed_sha256", bytes(32)),
        ("director_version", 8),
    ],
)
def test_a_wrap_opens_for_nothing_else(name: str, other: object) -> None:
    """Another tenant, device, unit, path, file or version of Targets: refused."""
    own = PrivateKey("x25519", bytes([1] * 32))
    data = wrap("x25519", own.public, KEY, wrap_info(**NAMED), bytes([2] * 32))
    assert unwrap("x25519", own.public, own.dh, data, wrap_info(**NAMED)) == KEY
    with pytest.raises(DecryptError):
        info = wrap_info(**{**NAMED, name: other})
        unwrap("x25519", own.public, own.dh, data, info)
    with pytest.raises(DecryptError):
        info = upload_info(NAMED["path"], DIGEST)
        unwrap("x25519", own.public, own.dh, data, info)


def test_names_of_an_info_cannot_slide_into_each_other() -> None:
    """Each has its length in front, and one spelling of a text is as good as another."""
    split = wrap_info(**{**NAMED, "device_id": "dev-1m", "ecu_id": "ain"})
    assert split != wrap_info(**NAMED)
    composed, apart = "Ger\u00e4t", "Gera\u0308t"
    assert wrap_info(**{**NAMED, "path": composed}) == wrap_info(
        **{**NAMED, "path": apart}
    )


def test_a_wrapped_key_of_another_length_is_no_content_key() -> None:
    own = PrivateKey("x25519", bytes([1] * 32))
    data = wrap("x25519", own.public, b"short", b"", bytes([2] * 32))
    with pytest.raises(DecryptError):
        unwrap("x25519", own.public, own.dh, data, b"")
    with pytest.raises(MalformedError):
        key_id("x448", own.public)


# ── weight ───────────────────────────────────────────────────────────────────────────
def test_cryptography_is_loaded_when_a_chunk_is_opened_and_not_before() -> None:
    """A device that only polls, or plans its ranges, never carries it."""
    code = (
        "import sys; from sealift.core import encryption as e;"
        "e.sealed_range(0, 1, 1); e.plain_length(72); e.key_id('x25519', bytes(32));"
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
