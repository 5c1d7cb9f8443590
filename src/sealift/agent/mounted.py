"""Which slot runs: the one whose block device lies under the mounted root (device-D2).

The loader is never asked. The mount of the root names a device; device-mapper (verity,
crypt, linear) and RAID name in sysfs what they lie on, all the way down; the slot whose
device is among them runs. Only ``/proc`` and ``/sys`` are read, and where they are is
told, so tests bring their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.core.errors import BootError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Mounted", "block_device", "root_hash"]

_MOST_BYTES: Final = 1 << 20
_MOST_DEVICES: Final = 64
_ESCAPED = re.compile(r"\\([0-7]{3})")
_NUMBERS = re.compile(r"[0-9]{1,8}:[0-9]{1,8}")
_ROOT_HASH = re.compile(r"[0-9a-f]{64}")
_HINT: Final = (
    "set [boot] root to where the file system of the running slot is mounted, "
    "and [[component]] slots to the block devices"
)


def block_device(path: str) -> str | None:
    """``MAJOR:MINOR`` of a block device; ``None`` for anything else that exists.

    Raises:
        BootError: there is nothing of this name.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise BootError(f"slot {path}: {error.strerror}", hint=_HINT) from error
    if not stat.S_ISBLK(found.st_mode):
        return None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


@dataclass(frozen=True, slots=True)
class Mounted:
    """``root`` is a mount point, ``slots`` the paths of the two block devices."""

    root: str
    slots: Mapping[Slot, str]
    proc: str = "/proc"
    sys: str = "/sys"
    number: Callable[[str], str | None] = block_device

    def slot(self) -> Slot:
        """The slot that runs.

        Raises:
            BootError: the root is on no device of a slot, or on those of both.
        """
        devices = list(self._devices(self._mounted_device()))
        numbers = {slot: self.number(path) for slot, path in self.slots.items()}
        running = [slot for slot, number in numbers.items() if number in devices]
        if len(running) == 1:
            return running[0]
        what = "both slots" if running else "neither slot"
        are = ", ".join(f"{s} is {n or 'no device'}" for s, n in numbers.items())
        on = ", ".join(devices)
        raise BootError(f"{self.root} is on {what}: it lies on {on}; {are}", hint=_HINT)

    def _mounted_device(self) -> str:
        """``MAJOR:MINOR`` of what is mounted on top at the root's mount point."""
        path = os.path.join(self.proc, "self/mountinfo")
        found = [mount for mount in _mounts(_read(path)) if mount.point == self.root]
        covered = {mount.parent for mount in found}
        top = [mount for mount in found if mount.id not in covered]
        if not top:
            raise BootError(f"{self.root} is no mount point", hint=_HINT)
        device = top[-1].device
        if device.startswith("0:"):
            raise BootError(
                f"{self.root} is mounted from no block device (overlay or network)",
                hint=_HINT,
            )
        return device

    def _devices(self, top: str) -> Iterator[str]:
        """A device and all it lies on, each once."""
        seen, waiting = {top}, [top]
        while waiting:
            device = waiting.pop()
            yield device
            for below in self._below(device):
                if below not in seen:
                    seen.add(below)
                    waiting.append(below)
            if len(seen) > _MOST_DEVICES:
                raise BootError(
                    f"{self.root} lies on more than {_MOST_DEVICES} devices"
                )

    def _below(self, device: str) -> Iterator[str]:
        directory = os.path.join(self.sys, "dev/block", device, "slaves")
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = sorted(os.listdir(directory))
        for name in names:
            number = _read(os.path.join(directory, name, "dev")).strip()
            if not _NUMBERS.fullmatch(number):
                raise BootError(f"sysfs gives no number for {name} below {device}")
            yield number


def root_hash(proc: str = "/proc") -> str | None:
    """The dm-verity root hash on the command line of the running kernel, in hex.

    ``None``: there is none, or there are two that differ.

    Raises:
        BootError: the command line cannot be read.
    """
    words = _read(os.path.join(proc, "cmdline")).split()
    found = {
        word.removeprefix("roothash=") for word in words if word.startswith("roothash=")
    }
    [one] = found if len(found) == 1 else {""}
    return one if _ROOT_HASH.fullmatch(one) else None


@dataclass(frozen=True, slots=True)
class _Mount:
    id: str
    parent: str
    device: str
    point: str


def _mounts(text: str) -> Iterator[_Mount]:
    """Lines of ``mountinfo`` (proc(5)); blanks in a name are octal there."""
    for line in text.splitlines():
        parts = line.split(" ")
        if len(parts) > 5 and _NUMBERS.fullmatch(parts[2]):
            point = _ESCAPED.sub(lambda it: chr(int(it[1], 8)), parts[4])
            yield _Mount(parts[0], parts[1], parts[2], point)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error
    if len(raw) > _MOST_BYTES:
        raise BootError(f"{path} is longer than {_MOST_BYTES} bytes")
    return raw.decode("utf-8", "surrogateescape")
