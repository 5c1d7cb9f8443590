"""Small files of a desk or server: read bounded, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sealift.core.errors import (
    InvalidConfigError,
    LimitError,
    SealiftError,
    SpaceError,
    UnsafeNameError,
)
from sealift.core.metadata import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "DirectoryStore",
    "digest_of",
    "make_directory",
    "read_bounded",
    "sync_directory",
    "translated",
    "write_atomic",
]

T = TypeVar("T")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NAME = re.compile(r"(?:[1-9][0-9]{0,15}\.)?[a-z0-9_%-]{1,200}\.json")


class DirectoryStore:
    """A ``MetadataStore`` over the files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, ``None`` if there is none.

        Raises:
            LimitError: more than any metadata file may have. InvalidConfigError: it
                cannot be read. UnsafeNameError: not a metadata file name.
        """
        path = self._path(name)
        return read_bounded(path, IMAGE.targets_bytes) if path.exists() else None

    def write(self, name: str, raw: bytes) -> None:
        """Write or replace a file atomically and durably.

        Raises:
            SpaceError, InvalidConfigError: it cannot be written; nothing changed.
            UnsafeNameError: not a metadata file name.
        """
        write_atomic(self._path(name), raw, mode=0o644)

    def names(self) -> Sequence[str]:
        """All metadata file names, sorted; other files are passed over."""
        if not self.directory.is_dir():
            return []
        found = (path.name for path in self.directory.iterdir())
        return sorted(name for name in found if _NAME.fullmatch(name))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UnsafeNameError(f"{name!r} is not the name of a metadata file")
        return self.directory / name


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole file, at most ``limit`` bytes of it are ever read.

    Raises:
        InvalidConfigError: it cannot be read. LimitError: it is longer.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as error:
        raise translated(path, error, "read") from error
    if len(raw) > limit:
        raise LimitError(f"{path} has more than {limit} bytes")
    return raw


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file of any size.

    Raises:
        InvalidConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise translated(path, error, "read") from error


def read_as(path: Path, limit: int, parse: Callable[[bytes], T]) -> T:
    """What ``parse`` makes of a file; its refusals name the file.

    Raises:
        InvalidConfigError, LimitError: as :func:`read_bounded`; and what ``parse``
        raises.
    """
    raw = read_bounded(path, limit)
    try:
        return parse(raw)
    except SealiftError as error:
        error.message = f"{path}: {error.message}"
        error.args = (error.message,)
        raise


def write_atomic(path: Path, raw: bytes, *, mode: int, replace: bool = True) -> None:
    """Write a file so that after any interruption it is the old or the new one.

    A temporary file beside it, ``fsync``, rename, ``fsync`` of the directory. With
    ``replace=False`` an existing file is never touched.

    Raises:
        SpaceError: no room. InvalidConfigError: anything else; nothing changed.
    """
    try:
        _write(path, raw, mode, replace=replace)
    except OSError as error:
        raise translated(path, error, "written") from error


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make a directory (its parents must exist); an existing one keeps its mode.

    Raises:
        SpaceError, InvalidConfigError: it cannot be made.
    """
    try:
        path.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise translated(path, error, "made") from error


def _write(path: Path, raw: bytes, mode: int, *, replace: bool) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(raw)
            stream.flush()
            os.fsync(descriptor)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # fails if the name is taken
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed or made in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def translated(path: Path, error: OSError, verb: str) -> SealiftError:
    """What an ``OSError`` met while ``path`` was read, written or made becomes."""
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return SpaceError(f"{path} cannot be {verb}: {reason}", hint="make room")
    if isinstance(error, FileExistsError):
        hint = "choose another place, or remove it yourself if it is not needed"
    else:
        hint = "check the path, its owner and its mode"
    return InvalidConfigError(f"{path} cannot be {verb}: {reason}", hint=hint)
