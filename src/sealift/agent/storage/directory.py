"""The directory of the store: made, checked, locked."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from sealift.agent.files import check_directory
from sealift.agent.storage.codec import translated
from sealift.core.errors import BusyError, SealiftError, StateError, TrustAnchorError


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
        raise translated(error, f"state directory {path} cannot be made") from error
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
