r"""The secure store: small records in one directory, committed together or not at all.

```
DIR/              0700, ours; an exclusive flock on it keeps a second agent out (D-17)
DIR/index         which generation of each record is in force; the only commit point
DIR/NAME@GEN      one record, never changed after it was written; GEN in lower hex
```
Every file is ``sealift1 HEX\n`` and the data, HEX being the SHA-256 of name, NUL and
data, so a rotten or swapped file is seen. A commit writes its records under a new
generation, makes them durable, and renames one new index over the old. What a cut
leaves behind is removed by the next :class:`Store`. Keys are not kept here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Protocol

from sealift.agent.files import check_directory, check_private
from sealift.core.errors import (
    BusyError,
    LimitError,
    SealiftError,
    SpaceError,
    StateError,
    TrustAnchorError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sealift.agent.ports import Storage

RECORD_LIMIT = 16 << 20
"""Most bytes of one record; the largest metadata file has 5 MB."""

_NAME = re.compile(r"[a-z0-9._%-]{1,200}")
_FILE = re.compile(rf"({_NAME.pattern})@([0-9a-f]{{1,16}})")
_INDEX, _NEW_INDEX = "index", "index.new"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOOKS = 5  # a reader beside a busy writer looks again this often


class DamagedError(StateError):
    """The bytes on the disk are not the bytes that were written."""


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


# ── the directory ────────────────────────────────────────────────────────────────────
def claim(path: str) -> int:
    """Make the directory if it is missing, check it, lock it. Close to unlock.

    The lock belongs to the descriptor: a child shares it, and it lasts as long as one
    of both lives.

    Raises:
        BusyError: another agent holds it. TrustAnchorError: not ours, or too open.
        StateError: it cannot be made or opened. SpaceError: no room to make it.
    """
    try:
        _make(path)
    except OSError as error:
        raise _translated(error, f"state directory {path} cannot be made") from error
    directory = look(path)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(directory)
        raise BusyError(
            f"another agent works in {path}", hint="stop it, or wait", path=path
        ) from error
    return directory


def _make(path: str) -> None:
    if os.path.lexists(path):
        return
    os.mkdir(path, 0o700)
    parent = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(parent)  # or a cut takes everything that is written into it
    finally:
        os.close(parent)


def look(path: str) -> int:
    """Open the directory without a lock, to read beside a running agent.

    Raises:
        TrustAnchorError: not ours, or open to others. StateError: it is not there.
    """
    check_directory(os.path.dirname(path) or ".", "state directory")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        directory = os.open(path, flags)
    except OSError as error:
        raise _unopened(error, path) from error
    facts = os.fstat(directory)
    if facts.st_uid not in {0, os.geteuid()} or stat.S_IMODE(facts.st_mode) & 0o077:
        os.close(directory)
        raise TrustAnchorError(
            f"state directory {path} is open to others or not ours",
            hint=f"chown {os.geteuid()} {path}; chmod 700 {path}",
            path=path,
        )
    return directory


def _unopened(error: OSError, path: str) -> SealiftError:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return TrustAnchorError(f"state directory {path} is not a directory", path=path)
    return StateError(f"state directory {path}: {error.strerror}", path=path)


# ── reading ──────────────────────────────────────────────────────────────────────────
class Records:
    """A reader beside the one writer: each call sees the newest committed state."""

    def __init__(self, directory: int, calls: Calls = os) -> None:
        self._directory = directory
        self._calls = calls

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none.

        Raises:
            DamagedError: it is not what was written. StateError: it cannot be read.
            TrustAnchorError: wrong owner or mode.
        """
        for _ in range(_LOOKS):
            generation = self._index().get(name)
            if generation is None:
                return None
            found = self._file(_file_name(name, generation), name)
            if found is not None:
                return found
        raise DamagedError(f"record {name} is lost", record=name)

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names in use that begin with ``prefix``, sorted."""
        return sorted(name for name in self._index() if name.startswith(prefix))

    def _index(self) -> Mapping[str, int]:
        raw = self._file(_INDEX, _INDEX)
        return {} if raw is None else _read_index(raw)[1]

    def _file(self, file: str, name: str) -> bytes | None:
        raw = self._raw(file)
        return None if raw is None else _unsealed(name, raw)

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


class Overlay:
    """A store whose commits stay in memory: what is on disk is only read.

    ``directory`` comes from :func:`look` or :func:`claim`; ``None`` is an empty one.
    """

    def __init__(self, directory: int | None) -> None:
        self._below = None if directory is None else Records(directory)
        self._above: dict[str, bytes | None] = {}

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none.

        Raises:
            StateError, TrustAnchorError: as :meth:`Records.read`.
        """
        if name in self._above or self._below is None:
            return self._above.get(name)
        return self._below.read(name)

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """Remember the changes; nothing reaches the disk."""
        self._above |= changes

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names in use that begin with ``prefix``, sorted."""
        below = self._below.names(prefix) if self._below else ()
        found = dict.fromkeys(below, b"") | self._above
        return sorted(
            n for n, d in found.items() if d is not None and n.startswith(prefix)
        )


class Forgiving:
    """A store in which a damaged record counts as absent (E6).

    For what can be fetched and verified anew: one rotten block must not end updates for
    ever. ``tell`` hears of each. Not for counters.
    """

    def __init__(self, below: Storage, tell: Callable[[StateError], None]) -> None:
        self._below = below
        self._tell = tell

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none, or none that is whole.

        Raises:
            StateError, TrustAnchorError: it cannot be read for another reason.
        """
        try:
            return self._below.read(name)
        except DamagedError as error:
            self._tell(error)
            return None

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """As the store below.

        Raises:
            SpaceError, StateError: nothing changed.
        """
        self._below.commit(changes)

    def names(self, prefix: str = "") -> Sequence[str]:
        """As the store below."""
        return self._below.names(prefix)


# ── writing ──────────────────────────────────────────────────────────────────────────
class Store(Records):
    """The one writer. ``directory`` comes from :func:`claim`.

    ``remarks`` tell what had to be repaired when it was opened.
    """

    def __init__(self, directory: int, calls: Calls = os) -> None:
        super().__init__(directory, calls)
        self.remarks: tuple[str, ...] = ()
        self._generation, self._records = self._recover()
        self._sweep()

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and delete (``None``) several records in one atomic, durable step.

        Raises:
            SpaceError, StateError: nothing changed. LimitError: a record is too long.
        """
        news = {n: d for n, d in changes.items() if self._differs(n, d)}
        if not news:
            return
        generation = self._generation + 1
        records = {n: g for n, g in self._records.items() if n not in news}
        records |= {n: generation for n, data in news.items() if data is not None}
        try:
            self._write(generation, news, records)
        except OSError as error:
            self._sweep()
            raise _translated(error, "state cannot be written") from error
        self._sweep()

    def _index(self) -> Mapping[str, int]:
        return self._records

    def _differs(self, name: str, data: bytes | None) -> bool:
        if not _NAME.fullmatch(name):
            raise StateError(f"{name!r} is no record name")
        if data is not None and len(data) > RECORD_LIMIT:
            raise LimitError(f"record {name} is longer than {RECORD_LIMIT} bytes")
        try:
            return self.read(name) != data
        except StateError:
            return True  # a damaged record may always be replaced

    def _write(
        self,
        generation: int,
        news: Mapping[str, bytes | None],
        records: dict[str, int],
    ) -> None:
        for name, data in news.items():
            if data is not None:
                self._put(_file_name(name, generation), _sealed(name, data))
        self._put(_NEW_INDEX, _sealed(_INDEX, _index_data(generation, records)))
        # The names of the new files must last before an index can point to them.
        self._calls.fsync(self._directory)
        self._calls.rename(
            _NEW_INDEX, _INDEX, src_dir_fd=self._directory, dst_dir_fd=self._directory
        )
        self._generation, self._records = generation, records
        self._calls.fsync(self._directory)

    def _put(self, file: str, data: bytes) -> None:
        self._remove(file)  # what a cut left under this name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self._calls.open(file, flags, 0o600, dir_fd=self._directory)
        try:
            self._calls.fchmod(descriptor, 0o600)  # whatever the umask took away
            while data:
                data = data[self._calls.write(descriptor, data) :]
            self._calls.fsync(descriptor)
        finally:
            self._calls.close(descriptor)

    def _remove(self, file: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._calls.unlink(file, dir_fd=self._directory)

    def _sweep(self) -> None:
        """Remove what no index names. Failing to is no loss: the next one tries."""
        wanted = {_file_name(n, g) for n, g in self._records.items()} | {_INDEX}
        try:
            for file in self._calls.listdir(self._directory):
                if file not in wanted and (_FILE.fullmatch(file) or file == _NEW_INDEX):
                    self._remove(file)
        except OSError:
            pass

    # ── recovery ─────────────────────────────────────────────────────────────────
    def _recover(self) -> tuple[int, dict[str, int]]:
        try:
            raw = self._file(_INDEX, _INDEX)
            if raw is not None:
                return _read_index(raw)
        except DamagedError:
            return self._rebuilt()
        files = self._files()
        # Without an index, generation 1 is what a cut in the first commit leaves.
        lost = any((m := _FILE.fullmatch(f)) and int(m[2], 16) > 1 for f in files)
        return self._rebuilt() if lost else (0, {})

    def _rebuilt(self) -> tuple[int, dict[str, int]]:
        """Newest whole file per record: counters and floors never go down by it."""
        self.remarks = ("the index was lost and has been rebuilt",)
        newest: dict[str, int] = {}
        highest = 0
        for file in self._files():
            if match := _FILE.fullmatch(file):
                name, generation = match[1], int(match[2], 16)
                highest = max(highest, generation)
                if generation > newest.get(name, 0) and self._is_whole(file, name):
                    newest[name] = generation
        return highest, newest

    def _is_whole(self, file: str, name: str) -> bool:
        try:
            return self._file(file, name) is not None
        except DamagedError:
            return False  # an unreadable file is another matter: nothing is swept then

    def _files(self) -> list[str]:
        try:
            return self._calls.listdir(self._directory)
        except OSError as error:
            raise StateError(f"state directory: {error.strerror}") from error


# ── bytes ────────────────────────────────────────────────────────────────────────────
def _file_name(name: str, generation: int) -> str:
    return f"{name}@{generation:x}"


def _sealed(name: str, data: bytes) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()
    return b"sealift1 " + digest.encode() + b"\n" + data


def _unsealed(name: str, raw: bytes) -> bytes:
    data = raw[74:]
    if _sealed(name, data) != raw:
        raise DamagedError(
            f"state of {name} is damaged",
            hint="the agent fetches or makes it again; check the disk",
            record=name,
        )
    return data


def _index_data(generation: int, records: Mapping[str, int]) -> bytes:
    found = {"generation": generation, "records": records}
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def _read_index(raw: bytes) -> tuple[int, dict[str, int]]:
    try:
        found = json.loads(raw)
        return int(found["generation"]), {
            str(name): int(generation) for name, generation in found["records"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError("the index of the state directory is no index") from error


def _translated(error: OSError, what: str) -> SealiftError:
    if error.errno in _FULL:
        return SpaceError(f"{what}: {error.strerror}", hint="free some space")
    return StateError(f"{what}: {error.strerror}", hint="check mount, mode and owner")
