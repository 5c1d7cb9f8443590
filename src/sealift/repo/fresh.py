"""A directory that appears whole: under its name only when everything is in it."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.core.errors import BusyError, InvalidConfigError
from sealift.repo.files import sync_directory, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fresh_directory", "require_free"]


def require_free(target: Path) -> None:
    """Return if nothing, or an empty directory, has that name.

    Raises:
        InvalidConfigError: something is there.
    """
    empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if not empty and (target.exists() or target.is_symlink()):
        raise InvalidConfigError(
            f"{target} exists already", hint="choose a new directory"
        )


@contextmanager
def fresh_directory(target: Path, *, mode: int) -> Iterator[Path]:
    """Fill a draft beside ``target``; it gets the name when the body is through.

    The draft is called ``.NAME.part``. If the body raises it is removed; what a killed
    process left of it is removed by the next one.

    Raises:
        InvalidConfigError: something is there already, or cannot be made.
        SpaceError: no room. BusyError: another process makes the same directory.
    """
    require_free(target)
    place = target.absolute()
    draft = place.with_name(f".{place.name}.part")
    try:
        descriptor = _claim(draft, mode)
    except OSError as error:
        raise translated(target, error, "made") from error
    try:
        yield draft
        draft.rename(place)
        sync_directory(place.parent)
    except OSError as error:
        raise translated(target, error, "made") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(descriptor)


def _claim(draft: Path, mode: int) -> int:
    """Make the draft anew and lock it; a lock ends with its process."""
    if draft.is_dir() and not draft.is_symlink():
        stale = _locked(draft)
        shutil.rmtree(draft)
        os.close(stale)
    draft.mkdir(mode=mode)
    return _locked(draft)


def _locked(draft: Path) -> int:
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise BusyError(
            f"another process is making {draft}", hint="wait for it, or end it"
        ) from error
    return descriptor
