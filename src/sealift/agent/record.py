r"""One durable record in two copies, so that no cut can leave none.

The journal, the counter floors and the reference loader's store are each one such
record. A copy is one line of ASCII, then the payload::

    sealift-record 1 SEQUENCE LENGTH SHA256\\n

With a store key the 1 is a 2, and in place of SHA256 stands an HMAC-SHA-256 over the
same, bound to the record's name; a copy of the other kind counts as damaged.

SEQUENCE has 20 decimal digits, LENGTH (of the payload, in bytes) has 10, SHA256 is
lower hex over ``"SEQUENCE LENGTH\\n"`` and the payload. The line is 114 bytes; whatever
follows the payload belongs to an older, longer copy and is ignored.

A write goes into the cell that does *not* hold the newest valid copy, with the next
sequence number, and is flushed before anything builds on it. So a torn or lost write
costs the change, never the record. What the payload means is the caller's business.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent.files import NO_ROOM, check_private, read_all
from sealift.agent.seal import UNKEYED
from sealift.core.errors import (
    SealiftError,
    SpaceError,
    StateError,
    TrustAnchorError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import Cells
    from sealift.agent.seal import Seal

__all__ = ["COPIES", "Copy", "FileCells", "LostError", "Record", "pack", "unpack"]

COPIES = 2
_HEADER_BYTES = 114
_HEADER = re.compile(
    rb"sealift-record ([12]) (([0-9]{20}) ([0-9]{10})) ([0-9a-f]{64})\n"
)
_SEQUENCE_END = 10**20


class LostError(StateError):
    """Something was written once, and no copy of it is valid.

    Not raised for a medium that cannot be read at the moment: what is there must not be
    replaced by a new beginning because of that.
    """


@dataclass(frozen=True, slots=True)
class Copy:
    """One valid copy: its number and what it says."""

    sequence: int
    payload: bytes


def pack(copy: Copy, seal: Seal = UNKEYED) -> bytes:
    """The bytes of one cell."""
    counted = b"%020d %010d" % (copy.sequence, len(copy.payload))
    return b"sealift-record %d %s %s\n%s" % (
        _form(seal),
        counted,
        seal.tag(counted + b"\n" + copy.payload),
        copy.payload,
    )


def unpack(raw: bytes, seal: Seal = UNKEYED) -> Copy | None:
    """Read one cell; ``None`` if it is torn, foreign or damaged in any way."""
    header = _HEADER.fullmatch(raw[:_HEADER_BYTES])
    if header is None or int(header[1]) != _form(seal):
        return None
    _, counted, sequence, length, tag = header.groups()
    payload = raw[_HEADER_BYTES : _HEADER_BYTES + int(length)]
    if len(payload) != int(length) or not seal.fits(counted + b"\n" + payload, tag):
        return None
    return Copy(int(sequence), payload)


def _form(seal: Seal) -> int:
    return 2 if seal.key else 1


class Record:
    """Two cells seen as one value that changes atomically and durably.

    ``limit`` bounds the payload in bytes, written and read.
    """

    def __init__(
        self,
        cells: Cells,
        *,
        limit: int,
        what: str = "record",
        seal: Seal = UNKEYED,
    ) -> None:
        self._seal = seal.of(f"record {what}")
        self._cells = cells
        self._limit = limit
        self._what = what
        self._newest: tuple[int, Copy] | None = None
        self.torn = False
        """Whether the last :meth:`read` met a copy that is not valid."""

    def read(self) -> bytes | None:
        """The payload, ``None`` if nothing was ever written whole.

        What is found is flushed before it is believed: an agent that was killed between
        write and flush left a copy that the next power cut would take back.

        Raises:
            LostError: something was written once, and no copy of it is valid.
            StateError: the medium cannot be read, or cannot promise what was read.
        """
        self._newest = None
        found = [self._cells.read(at, _HEADER_BYTES + self._limit) for at in _BOTH]
        self.torn = False
        for at, copy in self._valid(found):
            if self._newest is None or copy.sequence > self._newest[1].sequence:
                self._newest = (at, copy)
        if self._newest is not None:
            self._cells.flush(self._newest[0])
            return self._newest[1].payload
        # The second cell is used from the second write on; while it is empty, a damaged
        # first one is a first write that was cut.
        if found[1]:
            raise LostError(
                f"both copies of the {self._what} are damaged",
                hint="the device keeps what it runs; see `sealift-agent status`",
                record=self._what,
            )
        return None

    def write(self, payload: bytes) -> None:
        """Replace the value; durable when this returns, the old value if it raises.

        A value that is there already is not written again.

        Raises:
            StateError: too long, or the medium refuses. SpaceError: no room.
        """
        if len(payload) > self._limit:
            raise StateError(
                f"the {self._what} would take {len(payload)} bytes of {self._limit}"
            )
        if self._newest is None:
            self._adopt()
        at, sequence = 0, 1
        if self._newest is not None:
            newest_at, newest = self._newest
            if newest.payload == payload:
                return
            at, sequence = 1 - newest_at, newest.sequence + 1
        copy = Copy(sequence % _SEQUENCE_END, payload)
        self._cells.write(at, pack(copy, self._seal))
        self._cells.flush(at)
        self._newest = (at, copy)

    @property
    def sequence(self) -> int:
        """The number of the copy last read or written; 0 if there is none."""
        return self._newest[1].sequence if self._newest else 0

    def _adopt(self) -> None:
        """Learn where the newest copy lies; damaged ones are there to be replaced."""
        try:
            self.read()
        except LostError:
            self._newest = None

    def _valid(self, found: list[bytes | None]) -> Iterator[tuple[int, Copy]]:
        for at, raw in enumerate(found):
            copy = unpack(raw, self._seal) if raw else None
            if copy is not None and len(copy.payload) <= self._limit:
                yield at, copy
            elif raw:
                self.torn = True


class FileCells:
    """Cells as two files ``NAME.0`` and ``NAME.1`` in one directory, mode 0600."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._paths = tuple(os.path.join(directory, f"{name}.{at}") for at in _BOTH)

    def read(self, cell: int, limit: int) -> bytes | None:
        """At most ``limit`` bytes; ``None`` if the file does not exist.

        Raises:
            StateError: it cannot be read. TrustAnchorError: it is not ours alone.
        """
        path = self._paths[cell]
        try:
            descriptor = os.open(path, os.O_RDONLY | _SAFE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _translated(error, path) from error
        try:
            check_private(os.fstat(descriptor), path, "record")
            return read_all(descriptor, limit)
        except OSError as error:
            raise _translated(error, path) from error
        finally:
            os.close(descriptor)

    def write(self, cell: int, data: bytes) -> None:
        """Write in place, from the first byte on; nothing is truncated.

        Raises:
            SpaceError, StateError: as the port says.
        """
        path = self._paths[cell]
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _SAFE, 0o600)
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _translated(error, path) from error

    def flush(self, cell: int) -> None:
        """``fsync`` the file, then the directory that names it.

        Raises:
            StateError: the medium cannot promise it.
        """
        _sync(self._paths[cell], os.O_RDONLY | _SAFE)
        _sync(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


_BOTH = range(COPIES)
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _sync(path: str, flags: int) -> None:
    try:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _translated(error, path) from error


def _write_all(descriptor: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)


def _translated(error: OSError, path: str) -> SealiftError:
    if error.errno == errno.ELOOP:
        return TrustAnchorError(f"{path} is a symbolic link", path=path)
    kind = SpaceError if error.errno in NO_ROOM else StateError
    return kind(f"{path}: {error.strerror}", path=path)
