"""Work files that hold content of an image, kept as ciphertext only.

What is fetched for a later step lies in the state directory until then. Heads and
ledger hold digests and numbers; a patch for a microcontroller holds pieces of the
image, so with a store key it goes through here: AES-256-GCM by 16 KiB, a random nonce
each time a piece is written, the file's name and the piece's number bound in. A piece
that was changed, moved or cut reads as zeros, and then its digest is not the signed
one: it is fetched again, never used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sealift.core.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from sealift.agent.ports import SlotDevice, Workspace

__all__ = ["PIECE", "CipherFile", "secret"]

PIECE: Final = 16 * 1024
_NONCE: Final = 12
_TAG: Final = 16
_MORE: Final = _NONCE + _TAG


def secret(work: Workspace, names: Collection[str], key: bytes | None) -> Workspace:
    """The workspace with these files as ciphertext; without a key, as it is."""
    return work if key is None else _Secret(work, names, key)


class _Secret:
    """:class:`~sealift.agent.ports.Workspace` over another one."""

    def __init__(self, work: Workspace, names: Collection[str], key: bytes) -> None:
        self._work = work
        self._names = frozenset(names)
        self._key = key

    def open(self, name: str, length: int) -> SlotDevice:
        """As the port says."""
        if name not in self._names:
            return self._work.open(name, length)
        longer = length + _MORE * -(-length // PIECE)
        file = self._work.open(name, longer)
        return CipherFile(file, length, self._key, name.encode())

    def remove(self, name: str) -> None:
        """As the port says."""
        self._work.remove(name)


class CipherFile:
    """:class:`~sealift.agent.ports.SlotDevice` whose bytes are ciphertext below."""

    def __init__(self, below: SlotDevice, size: int, key: bytes, name: bytes) -> None:
        self._below = below
        self._key = key
        self._name = name
        self.size = size
        self.flush = below.flush
        self.drop_cache = below.drop_cache
        self.close = below.close

    def read(self, offset: int, length: int) -> bytes:
        """Zeros for a piece that was never written, or is not as it was written.

        Raises:
            SlotError: from the file below.
        """
        stop = min(offset + length, self.size)
        found = bytearray()
        for number in range(offset // PIECE, -(-stop // PIECE)):
            found += self._opened(number)
        start = offset % PIECE
        return bytes(found[start : start + max(0, stop - offset)])

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; pieces that are touched in part are read first.

        Raises:
            SpaceError: it would pass the end. SlotError: from the file below.
        """
        if offset < 0 or offset + len(data) > self.size:
            raise SpaceError("a write beyond the end of a work file", offset=offset)
        while data:
            number, into = divmod(offset, PIECE)
            whole = self._length(number)
            part = data[: whole - into]
            plain = part
            if len(part) < whole:
                kept = self._opened(number)
                plain = kept[:into] + part + kept[into + len(part) :]
            self._seal(number, plain)
            offset, data = offset + len(part), data[len(part) :]

    def _length(self, number: int) -> int:
        return min(PIECE, self.size - number * PIECE)

    def _seal(self, number: int, plain: bytes) -> None:
        nonce = os.urandom(_NONCE)
        sealed = self._cipher().encrypt(nonce, plain, self._bound(number))
        self._below.write(number * (PIECE + _MORE), nonce + sealed)

    def _opened(self, number: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        length = self._length(number)
        raw = self._below.read(number * (PIECE + _MORE), length + _MORE)
        try:
            return bytes(
                self._cipher().decrypt(raw[:_NONCE], raw[_NONCE:], self._bound(number))
            )
        except InvalidTag:
            return bytes(length)

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)

    def _bound(self, number: int) -> bytes:
        return self._name + b"\0" + number.to_bytes(8, "big")
