"""Files on an EFI system partition: a small vfat that is mounted only while in use.

What a cut leaves of a vfat is not what one would like: a rename is several sectors, a
file that was not flushed may be there with length 0 (device-D4). So nothing here is a
transaction; :mod:`sealift.agent.boot.systemd_boot` builds one from steps. Whoever calls
flushes: a file by :meth:`Partition.flush`, names by :meth:`Partition.sync`. The
partition is never mounted with ``sync`` or ``dirsync``: a thousand times the writes,
and not one flush of the drive's cache more (device-D5).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, Protocol

from sealift.agent import command, log
from sealift.agent.files import NO_ROOM
from sealift.agent.surroundings import ENVIRONMENT
from sealift.core.errors import BootError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sealift.agent.ports import Clock

__all__ = ["Directory", "Partition", "Programs"]

_MOUNT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
_CORRECTED: Final = 1  # how fsck.fat ends when it mended something
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SLOW_OPTIONS: Final = frozenset({"sync", "dirsync"})


class Partition(Protocol):
    """An EFI system partition; names are relative, with ``/``, as vfat shows them.

    Every verb but ``using`` needs to be inside of that. Raises ``BootError`` where the
    medium refuses, ``SpaceError`` where it is full.
    """

    def using(self, *, write: bool) -> AbstractContextManager[None]:
        """Have it mounted, to ``write`` or to look."""
        ...

    def files(self, directory: str) -> Mapping[str, int]:
        """The files of a directory with their lengths; none if there is no such one."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``, fewer only where the file ends."""
        ...

    def room(self) -> int:
        """Bytes that are free."""
        ...

    def create(self, name: str) -> None:
        """An empty file, also where there was one; its directory is made if missing."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Write ``data`` behind what the file holds."""
        ...

    def flush(self, name: str) -> None:
        """Have the file on the medium, and the next reads come from there."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what had it; not safe in a cut."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file; there may be none."""
        ...

    def sync(self) -> None:
        """Have all names and all else on the medium."""
        ...

    def remarks(self) -> Sequence[str]:
        """What is wrong with how it is mounted."""
        ...


class Programs:
    """What mounts and unmounts the partition; without any, it is always mounted.

    ``mount`` gets ``-r`` as one more argument when nothing will be written: mounted for
    writing, a vfat is marked dirty. Before it is, ``check`` mends what a cut left
    behind (``fsck.fat -a``).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        check: Sequence[str] = (),
        mount: Sequence[str] = (),
        unmount: Sequence[str] = (),
    ) -> None:
        self._clock = clock
        self._check = check
        self._mount = mount
        self._unmount = unmount

    @property
    def any(self) -> bool:
        """Whether mounting is ours to do."""
        return bool(self._mount)

    def mount(self, *, write: bool) -> None:
        """Mend it if it will be written, and mount it.

        Raises:
            BootError: a program cannot be run, fails, or does not end.
        """
        if write and self._check:
            self._run(self._check, fine=(0, _CORRECTED))
        self._run([*self._mount, *(() if write else ("-r",))])

    def unmount(self) -> None:
        """Unmount it.

        Raises:
            BootError: as ``mount``.
        """
        if self._unmount:
            self._run(self._unmount)

    @contextlib.contextmanager
    def alone(self, directory: str) -> Iterator[None]:
        """One process at a time: ``status`` must not unmount what an install writes.

        Raises:
            BootError: another one does not come to its end.
        """
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            until = self._clock.monotonic() + 2 * _MOUNT_SECONDS
            while not _locked(lock):
                if self._clock.monotonic() > until:
                    raise BootError(
                        "somebody else uses the EFI system partition",
                        hint="see whether another sealift-agent hangs",
                    )
                self._clock.sleep(_LOOK_SECONDS)
            yield
        finally:
            os.close(lock)

    def _run(self, program: Sequence[str], fine: tuple[int, ...] = (0,)) -> None:
        what = f"the program {program[0]} for the EFI system partition"
        try:
            ended = command.run(
                program, ENVIRONMENT, deadline=_MOUNT_SECONDS, clock=self._clock
            )
        except (OSError, ValueError) as error:
            raise BootError(f"{what} cannot be started: {error}") from error
        if ended.status not in fine:
            said = ended.output.decode("ascii", "replace").strip()[:200]
            raise BootError(
                f"{what} ended with {ended.status}: {said}",
                hint="see [boot] esp_mount in the configuration",
            )


class Directory:
    """:class:`Partition` at a mount point."""

    def __init__(
        self, path: str, programs: Programs, *, mounts: str = "/proc/self/mountinfo"
    ) -> None:
        self._path = path
        self._programs = programs
        self._mounts = mounts

    @contextlib.contextmanager
    def using(self, *, write: bool) -> Iterator[None]:
        """Mounted, if a program does that; the directory ``EFI`` has to be there.

        What is mounted already was left by somebody who was killed: it is unmounted
        first, so that nothing is mended, or written, that is mounted otherwise.

        Raises:
            BootError: it is not there, or a program failed.
        """
        if not self._programs.any:
            with self._held():
                yield
            return
        above = self._programs.alone(os.path.dirname(self._path) or "/")
        with _translated("find", self._path), above:
            if self._is_mounted():
                self._programs.unmount()
            self._programs.mount(write=write)
            try:
                with self._held():
                    yield
            finally:
                self._let_go()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """An open directory, so that nobody unmounts it meanwhile."""
        if not os.path.isdir(self._at("EFI")):
            raise BootError(
                f"{self._path} holds no directory EFI",
                hint="it is not mounted, or is no EFI system partition; "
                "see [boot] esp and esp_mount",
            )
        with _translated("find", self._path):
            held = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield
        finally:
            os.close(held)

    def _let_go(self) -> None:
        """What was done is done; that it stays mounted is told, and mended later."""
        try:
            self._programs.unmount()
        except BootError as error:
            log.failed("esp", error)

    def _is_mounted(self) -> bool:
        return bool(self._options())

    def files(self, directory: str) -> Mapping[str, int]:
        """The regular files of a directory."""
        with _translated("look into", directory):
            try:
                with os.scandir(self._at(directory)) as found:
                    return {
                        it.name: it.stat(follow_symlinks=False).st_size
                        for it in found
                        if it.is_file(follow_symlinks=False)
                    }
            except FileNotFoundError:
                return {}

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file."""
        with _translated("read", name), self._open(name, os.O_RDONLY) as file:
            pieces = []
            while length > 0 and (piece := os.pread(file, length, offset)):
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def room(self) -> int:
        """Bytes that are free."""
        with _translated("ask the size of", self._path):
            found = os.statvfs(self._path)
            return found.f_bavail * found.f_frsize

    def create(self, name: str) -> None:
        """An empty file."""
        with _translated("make", name):
            self._make_directory(name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with self._open(name, flags):
                pass

    def append(self, name: str, data: bytes) -> None:
        """Write at the end of a file."""
        view = memoryview(data)
        flags = os.O_WRONLY | os.O_APPEND
        with _translated("write", name), self._open(name, flags) as file:
            while view:
                view = view[os.write(file, view) :]

    def flush(self, name: str) -> None:
        """``fsync``, and forget the cached pages."""
        with _translated("flush", name), self._open(name, os.O_RDONLY) as file:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, old: str, new: str) -> None:
        """Another name."""
        with _translated("rename", old):
            self._make_directory(new)
            os.rename(self._at(old), self._at(new))

    def remove(self, name: str) -> None:
        """Delete a file."""
        with _translated("remove", name), contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name))

    def sync(self) -> None:
        """Every directory there may be a change in, then the file system.

        The directories come last once more: on vfat it is the ``fsync`` of one that
        flushes the drive's cache, a sync of the file system does not.
        """
        with _translated("sync", self._path):
            self._sync_directories()
            os.sync()
            self._sync_directories()

    def remarks(self) -> Sequence[str]:
        """Options nobody should mount it with (device-D5)."""
        options = self._options()
        return [
            f"{self._path} is mounted with {name}: wears the flash, keeps nothing safer"
            for name in sorted(options & _SLOW_OPTIONS)
        ]

    def _options(self) -> frozenset[str]:
        """The mount options of what is mounted there, per mount and per file system."""
        try:
            with open(self._mounts, encoding="utf-8", errors="replace") as mounts:
                lines = [line.split() for line in mounts]
        except OSError:
            return frozenset()
        wanted = os.path.realpath(self._path)
        found: frozenset[str] = frozenset()
        for words in lines:
            if len(words) > 9 and words[4] == wanted:  # a later mount hides this one
                found = frozenset([*words[5].split(","), *words[-1].split(",")])
        return found

    def _sync_directories(self) -> None:
        for name in ("EFI/sealift", "EFI/Linux", "EFI", ""):
            path = self._at(name) if name else self._path
            with contextlib.suppress(FileNotFoundError):
                file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)

    def _make_directory(self, name: str) -> None:
        """Of the file; one only, for ``EFI`` itself is never made by us."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(self._at(name)), 0o700)

    def _at(self, name: str) -> str:
        return os.path.join(self._path, name)

    @contextlib.contextmanager
    def _open(self, name: str, flags: int) -> Iterator[int]:
        file = os.open(self._at(name), flags | _SAFE, 0o600)
        try:
            yield file
        finally:
            os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _translated(verb: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = SpaceError if error.errno in NO_ROOM else BootError
        raise kind(
            f"cannot {verb} {name} on the EFI system partition: {error.strerror}"
        ) from error
