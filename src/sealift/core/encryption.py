"""Sealed payloads: a container in chunks any range of which opens alone, and its key.

A sealed file is C2SP chunked encryption with AES-256-GCM and SHA-512, "Cobblestone-256"
(c2sp.org/chunked-encryption@v1): ``salt 24 ‖ commitment 32 ‖ chunks``. Its content key
travels as an HPKE wrap (``core.hpke``) for one recipient. Bytes and known answers are
in ``docs/formats.md``, "Sealed payload" and "Wrapped content key".

* The commitment is compared before any chunk is opened, in constant time.
* Every chunk but the last holds 16 KiB and the last one less, so a cut at a chunk
  border shows without a flag.
* Nothing leaves :class:`Opener` before its tag verified.
* Secrecy is all this gives. What a payload may become is decided by signed digests
  (``uptane.md`` W6, W7), never by the fact that it decrypted.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from sealift.core import hpke
from sealift.core.canonical import nfc
from sealift.core.errors import DecryptError, LengthError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK: Final = 16_384
"""Plain bytes of every chunk but the last."""
TAG: Final = 16
SALT: Final = 24
PREFIX: Final = 56
"""Bytes of salt and commitment, before the first chunk."""
CONTENT_KEY: Final = 32

_SEALED_CHUNK = CHUNK + TAG
_MAX_CHUNKS = 1 << 38  # c2sp.org/chunked-encryption
_NAME = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"


TENANT: Final = "default"
"""The tenant in what a wrap is bound to, until there are others."""


# ── contexts ─────────────────────────────────────────────────────────────────────────
def payload_context(image_sha256: bytes, head_sha256: bytes) -> bytes:
    """What a sealed container is bound to: its image and its own plain head."""
    return b"sealift/payload/1\0" + image_sha256 + head_sha256


def wrap_info(
    tenant: str,
    device_id: str,
    ecu_id: str,
    path: str,
    sealed_sha256: bytes,
    director_version: int,
) -> bytes:
    """What a device's wrap is bound to (``crypto-and-identity.md`` section 3).

    ``path`` is the target path of the image, ``sealed_sha256`` the digest of the full
    sealed container, ``director_version`` that of the Targets carrying the wrap.
    """
    names = b"".join(_framed(name) for name in (tenant, device_id, ecu_id, path))
    version = director_version.to_bytes(8, "big")
    return b"sealift/cek-wrap/v1\0" + names + sealed_sha256 + version


def upload_info(path: str, sealed_sha256: bytes) -> bytes:
    """What the desk's wrap for the server is bound to."""
    return b"sealift/cek-upload/v1\0" + _framed(path) + sealed_sha256


def _framed(name: str) -> bytes:
    raw = nfc(name).encode()
    return len(raw).to_bytes(2, "big") + raw


# ── lengths and ranges ───────────────────────────────────────────────────────────────
def sealed_length(plain: int) -> int:
    """Bytes of the file that seals ``plain`` bytes."""
    return PREFIX + plain + TAG * (plain // CHUNK + 1)


def plain_length(sealed: int) -> int:
    """Bytes that a sealed file of this length holds.

    Raises:
        LengthError: no sealed file has this length.
    """
    full, last = divmod(sealed - PREFIX, _SEALED_CHUNK)
    if full < 0 or last < TAG or full >= _MAX_CHUNKS:
        raise LengthError("no sealed file has this length", length=sealed)
    return full * CHUNK + last - TAG


def sealed_range(start: int, stop: int, plain: int) -> tuple[int, int]:
    """Where the whole chunks holding the plain bytes [start, stop) lie in the file.

    Raises:
        LengthError: empty, or not within ``plain`` bytes.
    """
    if not 0 <= start < stop <= plain:
        raise LengthError("a range outside the sealed bytes", start=start, stop=stop)
    first, behind = start // CHUNK, (stop - 1) // CHUNK + 1
    end = min(PREFIX + behind * _SEALED_CHUNK, sealed_length(plain))
    return PREFIX + first * _SEALED_CHUNK, end


# ── chunks ───────────────────────────────────────────────────────────────────────────
class _Chunks:
    """The cipher of one sealed file. Chunk *k* has nonce ``base nonce XOR k``."""

    def __init__(self, content_key: bytes, context: bytes, salt: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(content_key) != CONTENT_KEY or len(salt) != SALT:
            raise DecryptError("a content key has 32 bytes, a salt 24")
        made = hpke.hkdf_expand("sha512", content_key, _NAME + salt + context, 76)
        self._nonce = int.from_bytes(made[32:44], "big")
        self.commitment = made[44:]
        self.cipher = AESGCM(made[:32])

    def nonce(self, index: int) -> bytes:
        """The nonce of chunk ``index``."""
        return (self._nonce ^ index).to_bytes(12, "big")


class Opener:
    """Opens any run of whole chunks of one sealed file."""

    def __init__(
        self, content_key: bytes, context: bytes, prefix: bytes, sealed_length: int
    ) -> None:
        """Check ``prefix``, the first 56 bytes of a file of ``sealed_length`` bytes.

        Raises:
            LengthError: no sealed file has this length.
            DecryptError: sealed with another key, for another context, or changed.
        """
        plain_length(sealed_length)
        if len(prefix) != PREFIX:
            raise DecryptError("a sealed payload is cut short")
        self._length = sealed_length
        self._chunks = _Chunks(content_key, context, prefix[:SALT])
        if not hmac.compare_digest(self._chunks.commitment, prefix[SALT:]):
            raise DecryptError(
                "a sealed payload is not sealed with this key for this image",
                hint="the file was exchanged, or the key was wrapped for another one",
            )

    def open(self, first_chunk: int, data: bytes) -> bytes:
        """The plain bytes of the whole chunks in ``data``, from ``first_chunk`` on.

        Raises:
            DecryptError: not whole chunks, beyond the end, or a tag does not verify.
        """
        from cryptography.exceptions import InvalidTag

        self._require_whole(first_chunk, len(data))
        cipher, nonce, view = self._chunks.cipher, self._chunks.nonce, memoryview(data)
        try:
            return b"".join(
                cipher.decrypt(nonce(k), bytes(view[at : at + _SEALED_CHUNK]), None)
                for k, at in enumerate(
                    range(0, len(data), _SEALED_CHUNK), start=first_chunk
                )
            )
        except InvalidTag:
            raise DecryptError("a chunk of a sealed payload does not open") from None

    def _require_whole(self, first_chunk: int, length: int) -> None:
        stop = PREFIX + first_chunk * _SEALED_CHUNK + length
        whole = length % _SEALED_CHUNK == 0 and stop < self._length
        if first_chunk < 0 or length <= 0 or not (whole or stop == self._length):
            raise DecryptError("these are not whole chunks of the sealed payload")


class Sealer:
    """Seals one file, chunk by chunk, in order and each once: a nonce never repeats."""

    def __init__(self, content_key: bytes, context: bytes, salt: bytes) -> None:
        """``salt`` is 24 random bytes, never used with this key before.

        Raises:
            DecryptError: key or salt has another length.
        """
        self._chunks = _Chunks(content_key, context, salt)
        self._next = 0
        self._ended = False
        self.prefix = salt + self._chunks.commitment

    def seal(self, index: int, plain: bytes) -> bytes:
        """Chunk ``index``: 16 KiB of plain bytes, fewer (or none) only in the last.

        Raises:
            RefusedError: not the next chunk, longer than one, or after the last.
        """
        if index != self._next or self._ended or len(plain) > CHUNK:
            raise RefusedError("chunks are sealed once, in order, up to the short one")
        self._next, self._ended = index + 1, len(plain) < CHUNK
        return self._chunks.cipher.encrypt(self._chunks.nonce(index), plain, None)


# ── content keys ─────────────────────────────────────────────────────────────────────
def wrap(
    kem: str,
    recipient_public: bytes,
    content_key: bytes,
    info: bytes,
    ephemeral_private: bytes,
) -> bytes:
    """The content key for one recipient: ``enc ‖ ciphertext ‖ tag``.

    ``ephemeral_private`` comes from :func:`sealift.core.hpke.new_private`.

    Raises:
        MalformedError: an unknown KEM, or the public key is no usable key of it.
    """
    return hpke.seal(kem, recipient_public, content_key, info, ephemeral_private)


def unwrap(
    kem: str, public: bytes, dh: Callable[[bytes], bytes], data: bytes, info: bytes
) -> bytes:
    """The content key of a wrap for ``public``, whose private key computes ``dh``.

    Raises:
        DecryptError: for another key or another ``info``, changed, or no content key.
        MalformedError: an unknown KEM.
    """
    content_key = hpke.unseal(kem, public, dh, data, info)
    if len(content_key) != CONTENT_KEY:
        raise DecryptError("a wrapped content key has a wrong length")
    return content_key


def key_id(kem: str, public: bytes) -> str:
    """The name of a recipient's key in wraps; raises ``MalformedError``."""
    return hpke.Recipient(hpke.kem_of(kem).name, public).kid
