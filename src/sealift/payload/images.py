"""Images as deltas read them: a file, a block device, or a full container.

All of them are read at offsets, by several threads at once, and hold a bounded part of
themselves in memory whatever their size.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from sealift.core import encryption
from sealift.core.container import IMAGE_MAX, Op, open_head
from sealift.core.errors import InvalidConfigError, LengthError, LimitError
from sealift.core.payload import check_frame, open_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sealift.core.container import ReadAt, Segment
    from sealift.core.encryption import Opener
    from sealift.core.types import Artifact, Container

PIECE: Final = 1 << 20
"""Bytes that are read at a time where an image is read from one end to the other."""
_KEPT: Final = 16


class Image(Protocol):
    """The bytes that fill a slot."""

    @property
    def length(self) -> int:
        """Bytes of the image."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """These bytes, fewer only where the image ends."""
        ...


def pieces(image: Image, size: int = PIECE) -> Iterator[bytes]:
    """The image from its beginning to its end.

    Raises:
        LengthError: it holds fewer bytes than it said.
    """
    for offset in range(0, image.length, size):
        yield exactly(image, offset, min(size, image.length - offset))


def exactly(image: Image, offset: int, length: int) -> bytes:
    """These bytes, all of them.

    Raises:
        LengthError: the image ends before.
    """
    found = image.read_at(offset, length)
    if len(found) != length:
        raise LengthError("delta: an image is shorter than it said")
    return found


class FileImage:
    """An image in a regular file or on a block device, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Take a descriptor that stays open as long as the image is used.

        Raises:
            InvalidConfigError: neither a file nor a block device.
            LimitError: empty, or larger than any image.
        """
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
            raise InvalidConfigError("an image is a file or a block device")
        self.length = os.lseek(descriptor, 0, os.SEEK_END)
        if not 0 < self.length <= IMAGE_MAX:
            raise LimitError(
                f"an image of {self.length} bytes",
                hint=f"an image has 1 to {IMAGE_MAX} bytes (64 GiB)",
            )
        self._descriptor = descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        """As :class:`Image`; the kernel may hand out less than was asked for."""
        found = os.pread(self._descriptor, length, offset)
        if len(found) == length or not found:
            return found
        rest = self.read_at(offset + len(found), length - len(found))
        return found + rest


@contextmanager
def opened(path: Path) -> Iterator[FileImage]:
    """The image at a path.

    Raises:
        InvalidConfigError: it cannot be read. LimitError: as :class:`FileImage`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise InvalidConfigError(
            f"{path} cannot be read: {error.strerror or error}"
        ) from error
    try:
        yield FileImage(descriptor)
    finally:
        os.close(descriptor)


class SealedView:
    """The plain bytes of a sealed file, opened where they are read."""

    def __init__(self, read_at: ReadAt, opener: Opener, sealed_length: int) -> None:
        self.length = encryption.plain_length(sealed_length)
        self._read_at = read_at
        self._opener = opener

    def read_at(self, offset: int, length: int) -> bytes:
        """As :class:`Image`; raises ``DecryptError`` if a chunk does not open."""
        stop = min(offset + length, self.length)
        if offset >= stop:
            return b""
        first = offset // encryption.CHUNK
        begin, end = encryption.sealed_range(offset, stop, self.length)
        plain = self._opener.open(first, self._read_at(begin, end - begin))
        skipped = offset - first * encryption.CHUNK
        return plain[skipped : skipped + stop - offset]


class ContainerImage:
    """The image inside a full container: each segment decoded when it is read.

    The last segments stay decoded, so reading on is as fast as the decoder, and a
    jump costs one segment.
    """

    def __init__(
        self, read_at: ReadAt, artifact: Artifact, container: Container
    ) -> None:
        """Take the plain view of a container; its head is verified here.

        Raises:
            PayloadError, FormatError: the head is not the one of this artifact.
        """
        self.length = artifact.length
        self._read_at = read_at
        self._segment_size = artifact.segment_size
        self._segments = tuple(open_head(read_at, artifact, container).segments())
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        """As :class:`Image`.

        Raises:
            PayloadError, LimitError: a frame is not the signed one, or no frame.
        """
        stop = min(offset + length, self.length)
        found = []
        while offset < stop:
            index, skipped = divmod(offset, self._segment_size)
            part = self._plain(index)[skipped : skipped + stop - offset]
            found.append(part)
            offset += len(part)
        return b"".join(found)

    def _plain(self, index: int) -> bytes:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            plain = self._opened(self._segments[index])
            self._kept[index] = plain
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return plain

    def _opened(self, segment: Segment) -> bytes:
        if segment.op is Op.ZERO:
            return bytes(segment.length)
        raw = self._read_at(segment.frame_offset, segment.frame_length)
        return open_frame(check_frame(segment, raw))
