"""Sealing a container as a stream: right bytes, right facts, little memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor

from sealift.core.encryption import (
    CHUNK,
    Opener,
    payload_context,
    plain_length,
    sealed_length,
)
from sealift.core.errors import DecryptError, DigestError
from sealift.core.types import Container
from sealift.payload.sealing import seal_container, seal_file

KEY = bytes(range(32))
SALT = bytes(range(24))
IMAGE = b"\x11" * 32
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 64 * CHUNK, 64 * CHUNK + 1, 200 * CHUNK]


class Dribble:
    """A file that gives its bytes in pieces of odd sizes, as pipes do."""

    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)
        self._size = 1

    def read(self, count: int, /) -> bytes:
        self._size = self._size * 7 % 60_013 + 1
        return self._file.read(min(count, self._size))


def container(plain: bytes, name: str = "board-rootfs-1.0.0.full") -> Container:
    head = plain[:300]
    return Container(
        name, len(plain), sha256(plain).digest(), 300, sha256(head).digest()
    )


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("dribble", [False, True])
def test_a_stream_is_sealed_as_its_bytes_would_be(length: int, dribble: bool) -> None:
    """Whatever pieces it comes in: the recipe of cryptography opens it."""
    plain = (bytes(range(251)) * (length // 251 + 1))[:length]
    source = Dribble(plain) if dribble else BytesIO(plain)
    out, told = BytesIO(), [0]
    found = seal_file(
        source, out, content_key=KEY, context=b"c", salt=SALT, progress=told.append
    )
    raw = out.getvalue()
    assert found == (len(raw), sha256(raw).digest())
    assert (len(raw), told[-1]) == (sealed_length(length), length)
    theirs = Cobblestone256Decryptor(KEY, b"c")
    assert theirs.update(raw) + theirs.finalize() == plain


def test_a_sealed_container_keeps_the_facts_of_its_head() -> None:
    """Length and digest are those of the file, the head's those of the plain bytes."""
    plain = bytes(range(256)) * 200
    known, out = container(plain), BytesIO()
    found = seal_container(
        known, BytesIO(plain), out, image_sha256=IMAGE, content_key=KEY, salt=SALT
    )
    raw = out.getvalue()
    assert found == replace(
        known,
        name="board-rootfs-1.0.0.full.sealed",
        length=len(raw),
        sha256=sha256(raw).digest(),
    )
    assert plain_length(found.length) == known.length
    context = payload_context(IMAGE, known.head_sha256)
    assert Opener(KEY, context, raw[:56], len(raw)).open(0, raw[56:]) == plain


def test_a_container_that_changed_is_not_sealed() -> None:
    """What would be signed is the digest of bytes that nobody looked at."""
    plain = bytes(1000)
    with pytest.raises(DigestError):
        seal_container(
            container(plain),
            BytesIO(plain[:-1] + b"!"),
            BytesIO(),
            image_sha256=IMAGE,
            content_key=KEY,
            salt=SALT,
        )


@pytest.mark.parametrize(("key", "salt"), [(KEY[:-1], SALT), (KEY, SALT + b"!")])
def test_keys_and_salts_have_one_length(key: bytes, salt: bytes) -> None:
    with pytest.raises(DecryptError):
        seal_file(BytesIO(), BytesIO(), content_key=key, context=b"", salt=salt)


def test_memory_does_not_grow_with_the_container(tmp_path: Path) -> None:
    """A file of 64 MiB is sealed in less than 8 MiB."""
    source = tmp_path / "plain"
    with source.open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    with source.open("rb") as plain, (tmp_path / "sealed").open("wb") as out:
        length, _ = seal_file(plain, out, content_key=KEY, context=b"", salt=SALT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length == sealed_length(64 << 20)
    assert peak < 8 << 20
