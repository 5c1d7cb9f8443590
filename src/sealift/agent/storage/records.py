"""Reading the store, beside its one writer or by it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Protocol

from sealift.agent.files import check_private
from sealift.agent.seal import UNKEYED
from sealift.agent.storage.codec import (
    INDEX,
    RECORD_LIMIT,
    DamagedError,
    ForeignError,
    file_name,
    read_index,
    unsealed,
)
from sealift.core.errors import StateError, TrustAnchorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sealift.agent.seal import Seal

_LOOKS = 5  # a reader beside a busy writer looks again this often


class Calls(Protocol):
    """The system calls of the store; the ``os`` module is the real implementation."""

    def open(self, path: str, flags: int, mode: int = ..., *, dir_fd: int) -> int:
        """``os.open``."""
        ...

    def read(self, fd: int, length: int, /) -> bytes:
        """``os.read``."""
        ...

    def write(self, fd: int, data: bytes, /) -> int:
        """``os.write``."""
        ...

    def fsync(self, fd: int) -> None:
        """``os.fsync``."""
        ...

    def fstat(self, fd: int) -> os.stat_result:
        """``os.fstat``."""
        ...

    def fchmod(self, fd: int, mode: int) -> None:
        """``os.fchmod``."""
        ...

    def close(self, fd: int) -> None:
        """``os.close``."""
        ...

    def listdir(self, path: int, /) -> list[str]:
        """``os.listdir``."""
        ...

    def unlink(self, path: str, *, dir_fd: int) -> None:
        """``os.unlink``."""
        ...

    def rename(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        """``os.rename``."""
        ...


class Records:
    """A reader beside the one writer: each call sees the newest committed state."""

    def __init__(self, directory: int, calls: Calls = os, seal: Seal = UNKEYED) -> None:
        self._directory = directory
        self._calls = calls
        self.seal = seal

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none.

        Raises:
            DamagedError: it is not what was written. ForeignError: the whole store is
            of another key. StateError: it cannot be read. TrustAnchorError: wrong owner
            or mode.
        """
        for _ in range(_LOOKS):
            generation = self._index().get(name)
            if generation is None:
                return None
            found = self._record(file_name(name, generation), name)
            if found is not None:
                return found
        raise DamagedError(f"record {name} is lost", record=name)

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names in use that begin with ``prefix``, sorted."""
        return sorted(name for name in self._index() if name.startswith(prefix))

    def _index(self) -> Mapping[str, int]:
        raw = self._file(INDEX)
        return {} if raw is None else read_index(raw)[1]

    def _record(self, file: str, name: str) -> bytes | None:
        """One whose index is ours: of another making, it was put there."""
        try:
            return self._file(file)
        except ForeignError as error:
            raise DamagedError(error.message, hint=error.hint, record=name) from error

    def _file(self, file: str) -> bytes | None:
        raw = self._raw(file)
        return None if raw is None else unsealed(file, raw, self.seal)

    def _raw(self, file: str) -> bytes | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = self._calls.open(file, flags, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise TrustAnchorError(f"state file {file} is a link") from error
            raise StateError(f"state file {file}: {error.strerror}") from error
        try:
            check_private(self._calls.fstat(descriptor), file, "state file")
            return self._bytes(descriptor, file)
        except OSError as error:
            raise StateError(f"state file {file}: {error.strerror}") from error
        finally:
            self._calls.close(descriptor)

    def _bytes(self, descriptor: int, file: str) -> bytes:
        pieces, left = [], RECORD_LIMIT + 1024
        while piece := self._calls.read(descriptor, min(left, 1 << 20)):
            pieces.append(piece)
            left -= len(piece)
            if left <= 0:
                raise StateError(f"state file {file} is too long")
        return b"".join(pieces)
