"""The images of a job, opened so that they can be read at any place, quickly.

Segments of a container are decoded when they are read, and comparing reads an image
more than once and not in order, so a container is unpacked first: into a file without a
name, or, if it is sealed, into memory. A sealed image too large for that is decoded as
it is read, which costs time and leaves nothing plain anywhere.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from io import FileIO
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sealift.core import encryption
from sealift.core.encryption import Opener, payload_context
from sealift.core.errors import DeltaMemoryError
from sealift.payload.images import ContainerImage, FileImage, SealedView, opened, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.core.types import Container
    from sealift.payload.fence.job import Source
    from sealift.payload.images import Image


_ZEROS: Final = bytes(1 << 20)


@contextmanager
def open_images(
    sources: tuple[Source, ...], memory: int
) -> Iterator[tuple[list[Image], int]]:
    """The images, and how much of ``memory`` they leave.

    At most half of it holds unpacked images. Unpacked plain containers go to files
    without a name in the current directory.

    Raises:
        InvalidConfigError, LimitError: as :func:`sealift.payload.images.opened`.
        PayloadError, FormatError: a container is not the signed one.
        OSError: there is no room for an unpacked image.
    """
    left = memory - memory // 2
    with ExitStack() as stack:
        images: list[Image] = []
        for source in sources:
            image = stack.enter_context(_opened(source))
            if isinstance(image, ContainerImage):
                sealed = source.content_key is not None
                if not sealed or image.length <= left:
                    left -= image.length if sealed else 0
                    room = image.length if sealed else None
                    image = _unpacked(image, stack.enter_context(scratch_file(room)))
            images.append(image)
        yield images, left + memory // 2


@contextmanager
def scratch_file(room: int | None) -> Iterator[BinaryIO]:
    """An empty file without a name, in the current directory.

    For bytes that must not reach a disk: in memory, of at most ``room`` bytes; writing
    more raises ``DeltaMemoryError``.
    """
    if room is None:
        with tempfile.TemporaryFile(dir=".") as file:
            yield file
        return
    with _MemoryFile(room) as file:
        yield file


class _MemoryFile(FileIO):
    def __init__(self, room: int) -> None:
        super().__init__(os.memfd_create("sealift", os.MFD_CLOEXEC), "r+")
        self._room = room

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > self._room:
            raise DeltaMemoryError(
                "delta: what is plain of a sealed image does not fit into memory",
                room=self._room,
            )
        return super().write(data)


@contextmanager
def _opened(source: Source) -> Iterator[Image]:
    with opened(source.path) as file:
        if source.artifact is None or source.container is None:
            yield file
            return
        container, view = plain_view(
            file, source.container, source.content_key, source.artifact.sha256
        )
        yield ContainerImage(view.read_at, source.artifact, container)


def plain_view(
    file: FileImage, container: Container, key: bytes | None, image_sha256: bytes
) -> tuple[Container, Image]:
    """A container as if it were not sealed: its facts so, and its bytes.

    Raises:
        LengthError: the file is not as long as it should be.
        DecryptError: it is not sealed with this key for this image.
    """
    if key is None:
        return container, file
    context = payload_context(image_sha256, container.head_sha256)
    prefix = file.read_at(0, encryption.PREFIX)
    opener = Opener(key, context, prefix, container.length)
    view = SealedView(file.read_at, opener, container.length)
    return replace(container, length=view.length), view


def _unpacked(image: Image, file: BinaryIO) -> Image:
    file.truncate(image.length)
    at = 0
    for piece in pieces(image):
        if piece != _ZEROS[: len(piece)]:
            file.seek(at)
            file.write(piece)
        at += len(piece)
    file.flush()
    return FileImage(file.fileno())
