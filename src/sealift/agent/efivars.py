"""Variables of UEFI firmware, as the kernel shows them in efivarfs.

A variable is a file ``NAME-GUID``: four bytes of attributes, then the value. Existing
ones are marked immutable, so that nobody removes them by accident; the mark is taken
off first, and the value goes there in one write, for each write is one SetVariable of
the firmware (device-D7). What the firmware was told is read back: some accept a value
and keep another.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final, Protocol

from sealift.agent.files import read_all
from sealift.core.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FIRMWARE", "LOADER", "EfiVariables", "Variables", "as_text", "as_value"]

LOADER: Final = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Vendor of what a boot loader and its system share (Boot Loader Interface)."""
FIRMWARE: Final = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""Vendor of the variables the UEFI specification names."""

ATTRIBUTES: Final = 7
"""Non-volatile, and for boot and run time."""
_VALUE_MAX: Final = 4096
_IMMUTABLE: Final = 0x10
_LONG: Final = struct.calcsize("l")
_GETFLAGS: Final = 0x80006601 | _LONG << 16
_SETFLAGS: Final = 0x40006602 | _LONG << 16
_NO_FLAGS: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS})
_HINT: Final = "the firmware keeps no variables, or root is needed; see docs/boards"


class Variables(Protocol):
    """What a loader and its system tell each other; values without attributes."""

    def read(self, name: str, vendor: str = LOADER) -> bytes | None:
        """The value, ``None`` if there is no such variable.

        Raises:
            BootError: it cannot be read.
        """
        ...

    def write(self, name: str, value: bytes) -> None:
        """Set a variable of the loader; durable when this returns.

        Raises:
            BootError: the firmware refused; the value is the old or the new one.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a variable of the loader; there may be none.

        Raises:
            BootError: the firmware refused.
        """
        ...


def as_value(text: str) -> bytes:
    """A text as loaders keep it: UTF-16, little-endian, with its NUL."""
    return (text + "\0").encode("utf-16-le")


def as_text(value: bytes | None) -> str:
    """What :func:`as_value` wrote; what is missing or no such text is empty."""
    try:
        return (value or b"").decode("utf-16-le").partition("\0")[0]
    except UnicodeDecodeError:
        return ""


class EfiVariables:
    """:class:`Variables` in efivarfs; another directory serves for tests."""

    def __init__(
        self,
        directory: str = "/sys/firmware/efi/efivars",
        *,
        ioctl: Callable[[int, int, array.array[int]], object] = fcntl.ioctl,
    ) -> None:
        self._directory = directory
        self._ioctl = ioctl

    def read(self, name: str, vendor: str = LOADER) -> bytes | None:
        """The value, ``None`` if there is no such variable.

        Raises:
            BootError: this machine has no such variables, or they cannot be read.
        """
        if not os.path.isdir(self._directory):
            raise BootError(
                f"{self._directory} is not there: not started by UEFI, or not mounted",
                hint="mount -t efivarfs efivarfs /sys/firmware/efi/efivars",
            )
        with _translated("read", name):
            try:
                descriptor = os.open(self._path(name, vendor), os.O_RDONLY | _SAFE)
            except FileNotFoundError:
                return None
            try:
                return read_all(descriptor, _VALUE_MAX)[4:]
            finally:
                os.close(descriptor)

    def write(self, name: str, value: bytes) -> None:
        """Set a variable of the loader, in one write, and read it back.

        Raises:
            BootError: the firmware refused, or kept another value.
        """
        path = self._path(name, LOADER)
        with _translated("set", name):
            self._unlock(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _SAFE, 0o600)
            try:
                whole = ATTRIBUTES.to_bytes(4, "little") + value
                if os.write(descriptor, whole) != len(whole):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            finally:
                os.close(descriptor)
        if (self.read(name) or b"")[: len(value)] != value:
            raise BootError(f"the firmware kept another {name}", hint=_HINT)

    def delete(self, name: str) -> None:
        """Remove a variable of the loader.

        Raises:
            BootError: the firmware refused.
        """
        path = self._path(name, LOADER)
        with _translated("delete", name), contextlib.suppress(FileNotFoundError):
            self._unlock(path)
            os.unlink(path)

    def _unlock(self, path: str) -> None:
        """Take the immutable mark off, where there is a file and it has one."""
        try:
            descriptor = os.open(path, os.O_RDONLY | _SAFE)
        except FileNotFoundError:
            return
        try:
            flags = array.array("l", [0])
            self._ioctl(descriptor, _GETFLAGS, flags)
            if flags[0] & _IMMUTABLE:
                flags[0] &= ~_IMMUTABLE
                self._ioctl(descriptor, _SETFLAGS, flags)
        except OSError as error:
            if error.errno not in _NO_FLAGS:  # a file system without such marks
                raise
        finally:
            os.close(descriptor)

    def _path(self, name: str, vendor: str) -> str:
        return os.path.join(self._directory, f"{name}-{vendor}")


_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@contextlib.contextmanager
def _translated(verb: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BootError(
            f"cannot {verb} the firmware's variable {name}: {error.strerror}",
            hint=_HINT,
        ) from error
