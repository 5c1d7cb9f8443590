"""Entries of systemd-boot as the loader sees them: names, attempts, order. Pure.

An entry of ours is a unified kernel image ``EFI/Linux/sealift-SLOT.efi``, confirmed, or
``sealift-SLOT+LEFT-DONE.efi``, unconfirmed: the loader counts LEFT down and DONE up, by
renaming, at each start. The order is the one of version 252 (device.md 1.4): nothing
left sorts last; then by the image's id, newest version, and name.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.core import version
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["LINUX", "Entry", "Release", "entries", "first", "matching", "name_of"]

LINUX: Final = "EFI/Linux"
"""Where the loader looks for unified kernel images."""

_NAME: Final = re.compile(r"sealift-([ab])(?:\+([0-9]{1,6})(?:-([0-9]{1,6}))?)?\.efi")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of ours; ``left`` is ``None`` if its starts are not counted."""

    name: str
    slot: Slot
    size: int
    left: int | None = None
    done: int = 0

    @property
    def path(self) -> str:
        """Its place on the partition."""
        return f"{LINUX}/{self.name}"

    @property
    def confirmed(self) -> bool:
        """Whether its name says that it is good: nothing is counted."""
        return self.left is None


@dataclass(frozen=True, slots=True)
class Release:
    """What the ``.osrel`` of an image says, as the loader sorts by it."""

    image: str
    version: str


def name_of(slot: Slot, left: int | None = None) -> str:
    """The name of an entry that was never started, or of a confirmed one."""
    return f"sealift-{slot}.efi" if left is None else f"sealift-{slot}+{left}.efi"


def entries(files: Mapping[str, int]) -> list[Entry]:
    """Ours among the files of ``EFI/Linux``; an empty file is none."""
    found = []
    for name, size in files.items():
        parts = _NAME.fullmatch(name.lower())
        if parts is None or not size:
            continue
        left = None if parts[2] is None else int(parts[2])
        found.append(Entry(name, Slot(parts[1]), size, left, int(parts[3] or 0)))
    return sorted(found, key=lambda it: it.name)


def matching(found: Iterable[Entry], pattern: str) -> list[Entry]:
    """Those whose name a variable's text means; it may hold ``*``, ``?`` and ``[]``."""
    wanted = pattern.lower()
    return [it for it in found if fnmatch.fnmatchcase(it.name.lower(), wanted)]


def first(
    found: Sequence[Entry], release: Callable[[Entry], Release | None]
) -> Entry | None:
    """Where the loader's list begins; what has no ``release`` is not in it."""
    known = [(it, of) for it in found if (of := release(it)) is not None]
    if not known:
        return None
    return min(known, key=functools.cmp_to_key(_compare))[0]


def _compare(one: tuple[Entry, Release], two: tuple[Entry, Release]) -> int:
    (left, mine), (right, theirs) = one, two
    if found := _order(left.left == 0, right.left == 0):
        return found
    if found := _order(mine.image, theirs.image):
        return found
    if found := -version.compare(mine.version, theirs.version):
        return found
    if found := -version.compare(left.name.lower(), right.name.lower()):
        return found
    return _order(-(left.left or 0), -(right.left or 0)) or _order(
        left.done, right.done
    )


def _order(left: bool | int | str, right: bool | int | str) -> int:  # noqa: FBT001
    return (left > right) - (left < right)  # type: ignore[operator]
