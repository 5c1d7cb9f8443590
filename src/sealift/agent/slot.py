"""Slots as regular files or block devices, and work files, each behind one descriptor.

The path comes from the device's own configuration and from nowhere else (D-08). It is
opened once, without following a link, and nothing is ever done by name afterwards
(C-01). A slot that is missing is an error, never a file made on the way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Final

from sealift.agent import life
from sealift.agent.files import NO_ROOM, check_private
from sealift.core.errors import SealiftError, SlotError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sealift.core.types import Slot

__all__ = ["OpenFile", "PathSlots", "WorkFiles"]

FLUSH_SECONDS: Final = 900.0
"""What a slow card may take for everything that is still in memory."""

_PIECE: Final = 64 * 1024
_ZEROS: Final = bytes(_PIECE)
_HINTS: Final = {
    errno.ENOENT: "create the slot or correct the path in the agent's configuration",
    errno.ELOOP: "name the file or device itself; links are not followed",
    errno.EACCES: "run the agent as a user who may write the slot",
    errno.EPERM: "run the agent as a user who may write the slot",
    errno.EROFS: "the file system is mounted read-only",
    errno.EBUSY: "the device is mounted or in use; never write a slot that is",
}


class OpenFile:
    """An open slot or work file: :class:`~sealift.agent.ports.SlotDevice`.

    It never grows. In a regular file, zeros over a hole leave the hole.
    """

    def __init__(self, descriptor: int, size: int, name: str, *, sparse: bool) -> None:
        self._fd = descriptor
        self._size = size
        self._name = name
        self._sparse = sparse

    @property
    def size(self) -> int:
        """Bytes it can hold."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``, fewer only at the end.

        Raises:
            SlotError: the medium gave an error, or fewer bytes than it holds.
        """
        want = max(0, min(length, self._size - offset))
        pieces: list[bytes] = []
        with self._translated("read", offset):
            while want:
                piece = os.pread(self._descriptor(), want, offset)
                life.beat()
                if not piece:
                    raise SlotError(f"{self._name} ends before its size", offset=offset)
                pieces.append(piece)
                offset += len(piece)
                want -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``.

        Raises:
            SpaceError: it would pass the end, or the file system is full.
            SlotError: the medium refused.
        """
        if offset < 0 or offset + len(data) > self._size:
            raise SpaceError(f"{self._name}: a write beyond its end", offset=offset)
        view = memoryview(data)
        if not self._sparse:
            self._put(offset, view)
            return
        for start, stop, zero in _runs(data):
            if not (zero and self._is_zero(offset + start, stop - start)):
                self._put(offset + start, view[start:stop])

    def flush(self) -> None:
        """Return when everything written is durable.

        Raises:
            SlotError, SpaceError: it may not be; the next write starts anew.
        """
        with self._translated("flush", 0), life.within(FLUSH_SECONDS):
            os.fdatasync(self._descriptor())

    def drop_cache(self) -> None:
        """Ask that the next reads come from the medium, in order; flush first."""
        with self._translated("drop the cache of", 0):
            os.posix_fadvise(self._descriptor(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(self._descriptor(), 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def close(self) -> None:
        """Release the descriptor and with it the lock; again is harmless."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _descriptor(self) -> int:
        if self._fd < 0:
            raise SlotError(f"{self._name} was closed")
        return self._fd

    def _put(self, offset: int, view: memoryview) -> None:
        with self._translated("write", offset):
            while view:
                done = os.pwrite(self._descriptor(), view, offset)
                life.beat()
                view = view[done:]
                offset += done

    def _is_zero(self, offset: int, length: int) -> bool:
        """Whether there are zeros already, as in a hole."""
        return self.read(offset, length) == _ZEROS[:length]

    @contextlib.contextmanager
    def _translated(self, verb: str, offset: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _refusal(f"cannot {verb} {self._name}", error, offset) from error


class PathSlots:
    """:class:`~sealift.agent.ports.Slots` by one path per slot."""

    def __init__(self, paths: Mapping[Slot, str]) -> None:
        self._paths = dict(paths)

    def open(self, slot: Slot, *, writable: bool) -> OpenFile:
        """Open one slot; a writer is alone with it.

        A block device is opened exclusively, which the kernel refuses while it is
        mounted; a file is locked against other agents.

        Raises:
            SlotError: missing, a link, neither file nor block device, in use, or not
                ours to write.
        """
        name = f"slot {slot}"
        path = self._paths.get(slot)
        if path is None:
            raise SlotError(f"{name} is not configured", slot=slot)
        try:
            kind = os.lstat(path).st_mode
            access = os.O_RDWR if writable else os.O_RDONLY
            if writable and stat.S_ISBLK(kind):
                access |= os.O_EXCL
            descriptor = os.open(path, _FLAGS | access)
        except OSError as error:
            raise _refusal(f"cannot open {name} ({path})", error) from error
        return _checked(descriptor, name, lock=writable, devices=True)


class WorkFiles:
    """:class:`~sealift.agent.ports.Workspace` in one directory of the agent's own."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def open(self, name: str, length: int) -> OpenFile:
        """Open a work file of exactly ``length`` bytes, made if it is missing.

        Raises:
            SpaceError: no room. SlotError: the directory or file cannot be used.
            TrustAnchorError: others could have written it, or read it (D-10).
        """
        path = os.path.join(self._directory, name)
        try:
            descriptor = os.open(path, _FLAGS | os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _refusal(f"cannot open the work file {path}", error) from error
        _private(descriptor, path)
        found = _checked(descriptor, f"work file {name}", lock=True, devices=False)
        if found.size == length:
            return found
        return _resized(descriptor, found, length)

    def remove(self, name: str) -> None:
        """Delete a work file; there may be none.

        Raises:
            SlotError: it cannot be deleted.
        """
        path = os.path.join(self._directory, name)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refusal(f"cannot remove the work file {path}", error) from error


# O_NONBLOCK: opening a FIFO somebody put there must not hang; files do not care.
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _private(descriptor: int, path: str) -> None:
    """Refuse what lies there and is not ours alone; the hint says how to repair it."""
    facts = os.fstat(descriptor)
    try:
        if stat.S_ISREG(facts.st_mode):
            check_private(facts, path, "work file")
    except SealiftError:
        os.close(descriptor)
        raise


def _checked(descriptor: int, name: str, *, lock: bool, devices: bool) -> OpenFile:
    """The open file, if it is of a right kind and nobody else writes it."""
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not (devices and stat.S_ISBLK(mode)):
            raise SlotError(f"{name} is neither a file nor a block device")
        if lock:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.lseek(descriptor, 0, os.SEEK_END)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise SlotError(
                f"{name} is being written by somebody else",
                hint="stop the other agent",
            ) from error
        if isinstance(error, OSError):
            raise _refusal(f"cannot use {name}", error) from error
        raise
    return OpenFile(descriptor, size, name, sparse=stat.S_ISREG(mode))


def _resized(descriptor: int, found: OpenFile, length: int) -> OpenFile:
    try:
        os.ftruncate(descriptor, length)
    except OSError as error:
        found.close()
        raise _refusal("cannot size a work file", error) from error
    return OpenFile(descriptor, length, "work file", sparse=True)


def _runs(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """``start, stop, all zero`` by 64 KiB; neighbours of other bytes stay together."""
    start = 0
    for at in range(0, len(data), _PIECE):
        stop = min(at + _PIECE, len(data))
        if data[at:stop] == _ZEROS[: stop - at]:
            if start < at:
                yield start, at, False
            yield at, stop, True
            start = stop
    if start < len(data):
        yield start, len(data), False


def _refusal(what: str, error: OSError, offset: int = 0) -> SealiftError:
    number = error.errno or 0
    reason = os.strerror(number)
    if number in NO_ROOM:
        return SpaceError(f"{what}: {reason}", errno=number, hint="free some space")
    hint = _HINTS.get(number)
    return SlotError(f"{what}: {reason}", errno=number, offset=offset, hint=hint)
