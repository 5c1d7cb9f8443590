"""Reading files that decide what this device believes: whose, how open, how long.

Configuration, trust anchors and keys go through :func:`read_guarded`; the store uses
the same :func:`check_private` for its own files. Nothing here writes; what those who
do must tell apart is :data:`NO_ROOM`.
"""

from __future__ import annotations

import errno
import os
import stat

from sealift.core.errors import LimitError, SealiftError, TrustAnchorError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says of a full medium."""

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_ANYTHING = stat.S_IRWXG | stat.S_IRWXO


def read_guarded(
    path: str,
    what: str,
    *,
    limit: int,
    secret: bool = False,
    absent: type[SealiftError] = TrustAnchorError,
) -> bytes:
    """The whole file, if only root and we can have written it (B-14, D-10, D-12).

    A symbolic link, a foreign owner, a mode that lets others write (``secret``: or
    read) and a directory in which others may swap the file are refused. The file that
    was checked is the file that is read: one descriptor.

    Raises:
        TrustAnchorError: owner, mode or kind is wrong. ``absent``: it is missing,
        unreadable or empty. LimitError: it is longer than ``limit`` bytes.
    """
    check_directory(os.path.dirname(path) or ".", what)
    descriptor = _open(path, what, absent)
    try:
        check_private(os.fstat(descriptor), path, what, secret=secret)
        found = read_all(descriptor, limit + 1)
    except OSError as error:
        raise absent(f"{what} {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if not found:
        raise absent(f"{what} {path} is empty", path=path)
    if len(found) > limit:
        raise LimitError(f"{what} {path} is longer than {limit} bytes", path=path)
    return found


def read_all(descriptor: int, limit: int) -> bytes:
    """At most ``limit`` bytes from here to the end of the file."""
    pieces = []
    while limit > 0 and (piece := os.read(descriptor, min(limit, 1 << 20))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def check_private(
    facts: os.stat_result, path: str, what: str, *, secret: bool = True
) -> None:
    """Refuse what is no regular file, not ours, or too open for what it holds.

    Raises:
        TrustAnchorError: with the command that repairs it as hint.
    """
    if not stat.S_ISREG(facts.st_mode):
        raise TrustAnchorError(f"{what} {path} is not a regular file", path=path)
    _check_owner(facts, path, what)
    forbidden = _OTHERS_MAY_ANYTHING if secret else _OTHERS_MAY_WRITE
    if facts.st_mode & forbidden:
        raise TrustAnchorError(
            f"{what} {path} is open to other users (mode {_mode(facts)})",
            hint=f"chmod {'600' if secret else 'go-w'} {path}",
            path=path,
        )


def check_directory(path: str, what: str) -> None:
    """Refuse a directory in which others may swap what lies there.

    Raises:
        TrustAnchorError: foreign owner, or writable by others and not sticky.
    """
    try:
        facts = os.stat(path)
    except OSError:
        return  # opening the file will say it better
    sticky = facts.st_mode & stat.S_ISVTX
    if facts.st_mode & _OTHERS_MAY_WRITE and not sticky:
        raise TrustAnchorError(
            f"others may replace the {what} in {path} (mode {_mode(facts)})",
            hint=f"chmod go-w {path}",
            path=path,
        )
    _check_owner(facts, path, what)


def _check_owner(facts: os.stat_result, path: str, what: str) -> None:
    if facts.st_uid not in {0, os.geteuid()}:
        raise TrustAnchorError(
            f"{what} {path} belongs to user {facts.st_uid}",
            hint=f"chown {os.geteuid()} {path}",
            path=path,
        )


def _open(path: str, what: str, absent: type[SealiftError]) -> int:
    # O_NONBLOCK: a fifo in its place must not hang us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except OSError as error:
        if os.path.islink(path):
            raise TrustAnchorError(
                f"{what} {path} is a symbolic link", path=path
            ) from error
        raise absent(
            f"{what} {path} cannot be opened: {error.strerror}", path=path
        ) from error


def _mode(facts: os.stat_result) -> str:
    return f"{stat.S_IMODE(facts.st_mode):04o}"
