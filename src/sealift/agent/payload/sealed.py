"""A sealed container: fetched in whole chunks, opened in memory, kept as it came.

Nothing opened is ever written anywhere but into the slot, as verified segments: the
head's work file holds the prefix and the sealed chunks of the head, and is opened again
for each read. Importing this loads no ``cryptography``; opening does.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from sealift.agent.payload.stream import gathered
from sealift.core.encryption import (
    CHUNK,
    PREFIX,
    TAG,
    Opener,
    payload_context,
    plain_length,
    sealed_range,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.payload.box import Reader
    from sealift.agent.payload.stream import Stream
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import ReadAt
    from sealift.core.types import Artifact, Container

_BATCH: Final = 4
"""Chunks opened at a time, for the sake of memory."""


class SealedBox:
    """:class:`~sealift.agent.payload.box.Box` of a sealed container.

    Raises:
        LengthError: no sealed file has this length.
    """

    def __init__(
        self, container: Container, artifact: Artifact, content_key: bytes
    ) -> None:
        self.plain = replace(container, length=plain_length(container.length))
        self._length = container.length
        self._context = payload_context(artifact.sha256, container.head_sha256)
        self._key = content_key
        self._chunks: _Chunks | None = None

    def wire(self, start: int, stop: int) -> tuple[int, int]:
        """The whole chunks that hold them."""
        return sealed_range(start, stop, self.plain.length)

    def head(self, file: SlotDevice) -> ReadAt:
        """Opened chunk by chunk, each time it is read.

        Raises:
            DecryptError: sealed with another key, for another image, or changed.
        """
        prefix = file.read(0, PREFIX)
        chunks = _Chunks(
            Opener(self._key, self._context, prefix, self._length).open, self.wire
        )
        chunks.keep_last(file, self.plain.head_length)
        self._chunks = chunks
        return lambda offset, length: chunks.read(file, offset, length)

    def reader(self, stream: Stream) -> Reader:
        """Opened as they come."""
        assert self._chunks is not None, "the head is read first"  # noqa: S101
        return _Opened(self._chunks, stream)


class _Chunks:
    """The chunks of one file, opened. The last one is kept: the next frame may begin in
    it, and a connection that is replaced goes on after it.
    """

    def __init__(
        self,
        opened: Callable[[int, bytes], bytes],
        wire: Callable[[int, int], tuple[int, int]],
    ) -> None:
        self._opened = opened
        self.wire = wire
        self.last = -1, b""

    def open(self, first: int, raw: bytes) -> bytes:
        """The plain bytes of whole chunks, from ``first`` on."""
        plain = self._opened(first, raw)
        before = (len(plain) - 1) // CHUNK
        self.last = first + before, plain[before * CHUNK :]
        return plain

    def read(self, file: SlotDevice, offset: int, length: int) -> bytes:
        """Plain bytes of a file that holds the beginning of the sealed one."""
        if not length:
            return b""
        start, stop = self.wire(offset, offset + length)
        first, into = divmod(offset, CHUNK)
        raw = file.read(start, stop - start)
        return self._opened(first, raw)[into : into + length]

    def keep_last(self, file: SlotDevice, length: int) -> None:
        """Keep the chunk that holds the last of the first ``length`` bytes."""
        start, stop = self.wire(length - 1, length)
        self.open((length - 1) // CHUNK, file.read(start, stop - start))


class _Opened:
    """Plain bytes out of sealed chunks, in order."""

    def __init__(self, chunks: _Chunks, stream: Stream) -> None:
        self._chunks = chunks
        self._stream = stream
        self._plain = b""
        self._next = 0
        self._skip = 0

    def open(self, start: int, stop: int) -> None:
        self._next, self._skip = divmod(start, CHUNK)
        self._plain = b""
        kept, plain = self._chunks.last
        if self._next == kept:
            self._plain, self._skip = plain[self._skip :], 0
            self._next += 1
        if self._next * CHUNK < stop:
            self._stream.open(*self._chunks.wire(self._next * CHUNK, stop))

    def take(self, length: int) -> bytes:
        return gathered(length, self._some)

    def _some(self, most: int) -> bytes:
        plain = self._plain or self._more(most)
        self._plain = plain[most:]
        return plain[:most]

    def _more(self, want: int) -> bytes:
        """A few more chunks; no more than the range holds."""
        count = min(-(-(want + self._skip) // CHUNK), _BATCH)
        left = self._stream.stop - self._stream.at
        raw = self._stream.take(min(count * (CHUNK + TAG), left))
        plain = self._chunks.open(self._next, raw)
        self._next = self._chunks.last[0] + 1
        skip, self._skip = self._skip, 0
        return plain[skip:]


@contextmanager
def held(content_key: bytes) -> Iterator[bytes]:
    """The key, in memory that is overwritten at the end: best effort, as Python may
    have made copies (``crypto-and-identity.md`` 7.1).
    """
    kept = bytearray(content_key)
    del content_key
    try:
        yield cast("bytes", kept)
    finally:
        kept[:] = bytes(len(kept))
