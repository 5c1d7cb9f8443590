"""Where a rebuilt image goes: a draft that can be continued, or nowhere at all.

A draft is ``NAME.part`` beside the image to be. It gets the name only when it is
finished, and stays when a run is stopped: the next one goes on with it. Nothing in it
is believed; whoever continues compares digests.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.core.errors import BusyError, InvalidConfigError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tick = Callable[[int], None]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PIECE = 1 << 20


class Draft:
    """An open draft; made by :func:`draft`."""

    def __init__(self, path: Path, descriptor: int, length: int) -> None:
        self.path = path
        self.length = length
        self._descriptor = descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        """What is there so far; zeros where nothing was written."""
        return os.pread(self._descriptor, length, offset)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            offset, view = offset + count, view[count:]

    def sha256(self, tick: Tick) -> bytes:
        """The digest of what is there, read back."""
        found = sha256()
        for offset in range(0, self.length, _PIECE):
            piece = self.read_at(offset, min(_PIECE, self.length - offset))
            found.update(piece)
            tick(offset + len(piece))
        return found.digest()

    def finish(self, name: Path) -> None:
        """Make it durable and give it its name, which must be free."""
        os.fsync(self._descriptor)
        os.link(self.path, name)
        self.path.unlink()
        directory = os.open(name.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def require_free(name: Path) -> None:
    """Return if nothing is called that.

    Raises:
        InvalidConfigError: something is.
    """
    if os.path.lexists(name):
        raise InvalidConfigError(
            f"{name} exists already", hint="choose another name, or remove it yourself"
        )


@contextmanager
def draft(name: Path, length: int) -> Iterator[Draft]:
    """The draft of the image that will be called ``name``, new or to be continued.

    If the body ends without :meth:`Draft.finish` it stays.

    Raises:
        InvalidConfigError: the name is taken, or nothing can be written there.
        BusyError: somebody else works on it. SpaceError: no room.
    """
    require_free(name)
    path = name.with_name(name.name + ".part")
    try:
        descriptor = os.open(path, _FLAGS, 0o644)
    except OSError as error:
        raise translated(path, error) from error
    try:
        _claim(path, descriptor, length)
        yield Draft(path, descriptor, length)
    except OSError as error:
        raise translated(path, error) from error
    finally:
        os.close(descriptor)


def _claim(path: Path, descriptor: int, length: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InvalidConfigError(f"{path} is no regular file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"another program writes {path}") from error
    os.ftruncate(descriptor, length)


def translated(path: Path, error: OSError) -> InvalidConfigError | SpaceError:
    """What an ``OSError`` met while ``path`` was written becomes."""
    reason = f"{path} cannot be written: {error.strerror or error}"
    if isinstance(error, FileExistsError):
        return InvalidConfigError(reason, hint="the name was taken in the meantime")
    if error.errno in _FULL:
        return SpaceError(reason, hint="make room and run it again: it goes on")
    return InvalidConfigError(reason, hint="check the path, its owner and its mode")


class Nowhere:
    """For a dry run: takes an image in order and keeps its digest only."""

    def __init__(self) -> None:
        self._digest = sha256()

    def read_at(self, offset: int, length: int) -> bytes:  # noqa: ARG002
        """Nothing is there."""
        return b""

    def write_at(self, offset: int, data: bytes) -> None:  # noqa: ARG002
        """Take the next bytes."""
        self._digest.update(data)

    def sha256(self, tick: Tick) -> bytes:  # noqa: ARG002
        """The digest of all that was taken."""
        return self._digest.digest()
