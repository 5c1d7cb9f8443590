"""Small files that a loader reads without an operating system: changed in place.

No temporary file, no rename, no truncation: a loader's list of sectors, and a vfat's
idea of a file, survive only if a file stays where it is and as long as it is.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from sealift.agent.files import read_all
from sealift.core.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Block", "BlockFile"]

_T = TypeVar("_T")


class Block(Protocol):
    """One such file. Raises ``BootError`` where the medium refuses."""

    def read(self, limit: int) -> bytes | None:
        """At most ``limit`` bytes; ``None`` if it is not there."""
        ...

    def settle(self) -> None:
        """What is in it is durable when this returns, whoever wrote it.

        A process that was killed between its write and its flush leaves what everybody
        reads and the next power cut takes back.
        """
        ...

    def write(self, data: bytes) -> None:
        """Have exactly ``data`` in it; durable, and read back, when this returns."""
        ...


class BlockFile:
    """:class:`Block` in a file that was made when the board was.

    ``made`` says by what command; it is never made here, for a new file lies somewhere
    else than the loader looks.
    """

    def __init__(self, path: str, made: str) -> None:
        self._path = path
        self._hint = f"make it with: {made}"

    def read(self, limit: int) -> bytes | None:
        """What is in it."""
        try:
            descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused("read", error) from error
        return self._with(descriptor, "read", lambda: read_all(descriptor, limit))

    def settle(self) -> None:
        """``fsync``; a file that is not there has nothing to lose.

        Raises:
            BootError: it is refused.
        """
        try:
            descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused("flush", error) from error
        self._with(descriptor, "flush", lambda: os.fsync(descriptor))

    def write(self, data: bytes) -> None:
        """Overwrite from the first byte on; what is longer is cut off afterwards.

        Raises:
            BootError: it is missing, no regular file, refuses, or keeps something else.
        """
        try:
            descriptor = self._open(os.O_RDWR)
        except OSError as error:
            raise self._refused("open", error) from error
        self._with(descriptor, "write", lambda: self._overwrite(descriptor, data))

    def _overwrite(self, descriptor: int, data: bytes) -> None:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise BootError(f"{self._path} is not a regular file", hint=self._hint)
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], done)
        os.fsync(descriptor)
        if facts.st_size > len(data):
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.pread(descriptor, len(data) + 1, 0) != data:
            raise BootError(f"{self._path} does not hold what was written")

    def _open(self, access: int) -> int:
        return os.open(self._path, access | _SAFE)

    def _with(self, descriptor: int, verb: str, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except OSError as error:
            raise self._refused(verb, error) from error
        finally:
            os.close(descriptor)

    def _refused(self, verb: str, error: OSError) -> BootError:
        return BootError(
            f"cannot {verb} {self._path}: {error.strerror}", hint=self._hint
        )


_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
