"""Sealing a finished container: chunk by chunk, in memory that does not grow with it.

What the bytes are is in ``core.encryption``. Content key and salt are arguments: 32
random bytes for each image, 24 for each file.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from sealift.core.encryption import CHUNK, Sealer, payload_context
from sealift.core.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.core.types import Container

__all__ = ["SUFFIX", "Source", "seal_container", "seal_file"]

SUFFIX: Final = ".sealed"
"""At the end of the name of every sealed file."""

_PIECE = 16 * CHUNK


class Source(Protocol):
    """What is sealed: a file, a pipe."""

    def read(self, count: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


def seal_file(
    source: Source,
    out: BinaryIO,
    *,
    content_key: bytes,
    context: bytes,
    salt: bytes,
    progress: Callable[[int], None] = lambda _done: None,
) -> tuple[int, bytes]:
    """Seal what is left to read of ``source``; length and SHA-256 of what was written.

    ``progress(done)`` counts plain bytes.

    Raises:
        DecryptError: content key or salt has a wrong length.
        OSError: reading or writing failed.
    """
    sealer = Sealer(content_key, context, salt)
    out.write(sealer.prefix)
    digest, length, done = sha256(sealer.prefix), len(sealer.prefix), 0
    for index, plain in enumerate(_chunks(source)):
        sealed = sealer.seal(index, plain)
        out.write(sealed)
        digest.update(sealed)
        length, done = length + len(sealed), done + len(plain)
        progress(done)
    return length, digest.digest()


def seal_container(
    container: Container,
    source: Source,
    out: BinaryIO,
    *,
    image_sha256: bytes,
    content_key: bytes,
    salt: bytes,
    progress: Callable[[int], None] = lambda _done: None,
) -> Container:
    """Seal a container for the image it holds; the facts of the sealed file.

    Its name is the old one with ``.sealed`` behind it; the facts of the head stay.

    Raises:
        DigestError: ``source`` is not that container. Else as :func:`seal_file`.
    """
    watched = _Watched(source)
    length, digest = seal_file(
        watched,
        out,
        content_key=content_key,
        context=payload_context(image_sha256, container.head_sha256),
        salt=salt,
        progress=progress,
    )
    if watched.digest.digest() != container.sha256:
        raise DigestError("the container changed before it was sealed")
    return replace(
        container, name=container.name + SUFFIX, length=length, sha256=digest
    )


class _Watched:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.digest = sha256()

    def read(self, count: int, /) -> bytes:
        found = self._source.read(count)
        self.digest.update(found)
        return found


def _chunks(source: Source) -> Iterator[bytes]:
    """The plain chunks: all of 16 KiB but the last, which may be empty."""
    rest = b""
    while piece := source.read(_PIECE):
        rest += piece
        whole = len(rest) - len(rest) % CHUNK
        for at in range(0, whole, CHUNK):
            yield rest[at : at + CHUNK]
        rest = rest[whole:]
    yield rest
