"""Blobs as files of one directory: whole, durable, never overwritten.

A blob's name is its digest, so it is safe as a file name and cannot stand for two
contents. A body is written beside its place, checked, made durable and only then linked
into place; what a crash leaves behind is removed at the next start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from contextlib import suppress
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sealift.core.errors import (
    InvalidInputError,
    NotFoundError,
    SealiftError,
    SpaceError,
    StateError,
    TooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["FileBlobs"]

PIECE = 256 * 1024
_BATCH = 1 << 20
_INCOMING = ".incoming-"
_NAME = re.compile(r"[0-9a-f]{64}\Z")


class FileBlobs:
    """The :class:`~sealift.server.ports.Blobs` of one host."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._next = 0
        for left in directory.glob(f"{_INCOMING}*"):
            left.unlink()

    async def put(
        self, name: str, body: AsyncIterator[bytes], *, length: int, sha256: str
    ) -> None:
        """Store a body whole and durably, or not at all; see the port."""
        self._next += 1
        incoming = self._directory / f"{_INCOMING}{os.getpid()}-{self._next}"
        final = self._place(name)
        try:
            stream = await asyncio.to_thread(_create, incoming)
            try:
                await _receive(stream, body, length, sha256)
            finally:
                await asyncio.to_thread(stream.close)
            await asyncio.to_thread(_publish, incoming, final)
        except OSError as error:
            raise _ours(error) from error
        finally:
            with suppress(FileNotFoundError):
                incoming.unlink()

    def read(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Bytes ``[start, stop)`` in pieces of at most 256 KiB."""
        try:
            stream = self._place(name).open("rb")
        except FileNotFoundError as error:
            raise NotFoundError("there is no such container") from error
        except OSError as error:
            raise _ours(error) from error
        with stream:
            stream.seek(start)
            while start < stop:
                piece = stream.read(min(PIECE, stop - start))
                if not piece:
                    raise NotFoundError("the container is shorter than recorded")
                start += len(piece)
                yield piece

    def _place(self, name: str) -> Path:
        if not _NAME.match(name):
            raise NotFoundError("a blob's name is a SHA-256 digest in lower hex")
        return self._directory / name


def _sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _receive(
    stream: BinaryIO, body: AsyncIterator[bytes], length: int, sha256: str
) -> None:
    digest, received, batch = new_sha256(), 0, bytearray()
    async for piece in body:
        received += len(piece)
        if received > length:
            raise TooLargeError(f"more than the {length} bytes announced")
        batch += piece
        if len(batch) >= _BATCH:
            await asyncio.to_thread(_take, stream, digest, bytes(batch))
            batch.clear()
    await asyncio.to_thread(_take, stream, digest, bytes(batch))
    if received != length:
        raise InvalidInputError(f"{received} bytes came, {length} were announced")
    if digest.hexdigest() != sha256:
        raise InvalidInputError(
            "the bytes are not those of the digest announced", sha256=sha256
        )
    await asyncio.to_thread(os.fsync, stream.fileno())


def _take(stream: BinaryIO, digest: object, data: bytes) -> None:
    digest.update(data)  # type: ignore[attr-defined]
    stream.write(data)
    stream.flush()


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "wb")


def _publish(incoming: Path, final: Path) -> None:
    """Link into place, create-only; the same digest there already is the same blob."""
    with suppress(FileExistsError):
        os.link(incoming, final)
    _sync_directory(final.parent)


def _ours(error: OSError) -> SealiftError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return SpaceError("the disk of the server is full")
    return StateError(
        f"the server cannot use {error.filename}: {error.strerror}",
        hint="look at the permissions and the state of that file system",
    )
