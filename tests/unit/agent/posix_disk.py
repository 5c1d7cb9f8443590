"""One directory on a disk that forgets what was not synced, call by call.

Strict POSIX: file data lasts after ``fsync`` of the file, a name lasts after ``fsync``
of the directory, a rename is one step, and what was not synced may last in any subset.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from dataclasses import dataclass, field


class PowerCut(BaseException):
    """The machine lost power; no ``except`` of the code under test may stop it."""


@dataclass
class Inode:
    data: bytes = b""
    durable: bytes = b""
    mode: int = 0o600


Change = dict[str, Inode | None]


@dataclass
class PosixDisk:
    """The system calls of the store on an in-memory directory; cut at call ``cut``."""

    cut: int | None = None
    fail: dict[int, int] = field(default_factory=dict)
    names: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    calls: int = 0
    writes: int = 0
    _open: dict[int, tuple[Inode | None, int]] = field(default_factory=dict)

    def _step(self) -> None:
        """Count one mutating call; lose power or fail instead of doing it."""
        self.calls += 1
        if self.calls == self.cut:
            raise PowerCut
        if code := self.fail.get(self.calls):
            raise OSError(code, os.strerror(code))

    def _name(self, change: Change) -> None:
        self.pending.append(change)
        _apply(self.names, change)

    # ── the calls ────────────────────────────────────────────────────────────────
    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int) -> int:
        if flags & os.O_CREAT:
            self._step()
            if path in self.names:
                raise FileExistsError(errno.EEXIST, "exists", path)
            self._name({path: Inode(mode=mode)})
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "missing", path)
        descriptor = 100 + self.calls + len(self._open)
        while descriptor in self._open:
            descriptor += 1
        self._open[descriptor] = (self.names[path], 0)
        return descriptor

    def read(self, fd: int, length: int, /) -> bytes:
        inode, at = self._open[fd]
        assert inode is not None
        found = inode.data[at : at + length]
        self._open[fd] = (inode, at + len(found))
        return found

    def write(self, fd: int, data: bytes, /) -> int:
        self._step()
        self.writes += 1
        inode, _ = self._open[fd]
        assert inode is not None
        taken = max(1, len(data) // 2)  # a short write each time
        inode.data += data[:taken]
        return taken

    def fsync(self, fd: int) -> None:
        self._step()
        if fd in self._open:
            inode, _ = self._open[fd]
            assert inode is not None
            inode.durable = inode.data
        else:
            self.durable = dict(self.names)
            self.pending = []

    def fstat(self, fd: int) -> os.stat_result:
        inode, _ = self._open[fd]
        assert inode is not None
        mode = stat.S_IFREG | inode.mode
        return os.stat_result((mode, 0, 0, 1, os.geteuid(), 0, 0, 0, 0, 0))

    def fchmod(self, fd: int, mode: int) -> None:
        self._step()
        inode, _ = self._open[fd]
        assert inode is not None
        inode.mode = mode

    def close(self, fd: int) -> None:
        del self._open[fd]

    def listdir(self, path: int, /) -> list[str]:
        return list(self.names)

    def unlink(self, path: str, *, dir_fd: int) -> None:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "missing", path)
        self._step()
        self._name({path: None})

    def rename(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._step()
        self._name({src: None, dst: self.names[src]})

    # ── after the cut ────────────────────────────────────────────────────────────
    def after_cut(self, chance: random.Random, keep: float) -> PosixDisk:
        """What the next start finds; each unsynced thing lasts with chance ``keep``."""
        names = dict(self.durable)
        for change in self.pending:
            if chance.random() < keep:
                _apply(names, change)
        found = {name: _settled(inode, chance, keep) for name, inode in names.items()}
        return PosixDisk(names=found, durable=dict(found))

    def copy(self) -> PosixDisk:
        """The same disk, everything durable, nothing counted."""
        found = {n: Inode(i.data, i.data, i.mode) for n, i in self.names.items()}
        return PosixDisk(names=found, durable=dict(found))


def _apply(names: dict[str, Inode], change: Change) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _settled(inode: Inode, chance: random.Random, keep: float) -> Inode:
    data = inode.durable
    if data != inode.data and chance.random() < keep:
        data = inode.data
    elif data != inode.data and chance.random() < 0.5:
        data = inode.data[: chance.randrange(len(inode.data) + 1)]  # torn
    return Inode(data, data, inode.mode)
