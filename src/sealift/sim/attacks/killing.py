"""System calls of the agent's store that end the process before the n-th change.

The process dies, the machine does not: what was written stays, what was not is not
there. Power cuts, which also empty caches, are ``sealift sim powercut``.
"""

from __future__ import annotations

import os

from sealift.sim.flash import Killed

__all__ = ["Killing"]


class Killing:
    """The calls of ``os`` the store uses, with a death in one of them."""

    def __init__(self, step: int) -> None:
        self._left = step

    @property
    def killed(self) -> bool:
        """Whether it came that far."""
        return self._left <= 0

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int) -> int:
        """``os.open``; a change if it makes a file."""
        if flags & os.O_CREAT:
            self._step()
        return os.open(path, flags, mode, dir_fd=dir_fd)

    def read(self, fd: int, length: int, /) -> bytes:
        """``os.read``."""
        return os.read(fd, length)

    def write(self, fd: int, data: bytes, /) -> int:
        """``os.write``; the second half is lost in a death."""
        if self._left == 1:
            os.write(fd, data[: len(data) // 2])
        self._step()
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """``os.fsync``."""
        self._step()
        os.fsync(fd)

    def fstat(self, fd: int) -> os.stat_result:
        """``os.fstat``."""
        return os.fstat(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        """``os.fchmod``."""
        os.fchmod(fd, mode)

    def close(self, fd: int) -> None:
        """``os.close``."""
        os.close(fd)

    def listdir(self, path: int, /) -> list[str]:
        """``os.listdir``."""
        return os.listdir(path)

    def unlink(self, path: str, *, dir_fd: int) -> None:
        """``os.unlink``."""
        self._step()
        os.unlink(path, dir_fd=dir_fd)

    def rename(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        """``os.rename``."""
        self._step()
        os.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
