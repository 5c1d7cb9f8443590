"""Bytes of one file on the server, in order: few requests, and each byte is paid."""

from __future__ import annotations

import re
from collections.abc import Generator
from io import BytesIO
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from sealift.core.errors import LengthError, UnsafeNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.payload.ledger import Ledger
    from sealift.agent.ports import Transport
    from sealift.core.errors import FailedTransferError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,199}", re.ASCII)


class Remote(Protocol):
    """What is signed of a file on the server: a container, for one."""

    @property
    def name(self) -> str:
        """Its name, unsafe as yet."""
        ...

    @property
    def length(self) -> int:
        """Its bytes."""
        ...

    @property
    def sha256(self) -> bytes:
        """Its digest, by which it is asked for."""
        ...


class Stream:
    """Ranges of one file as it lies on the server; places are those of the file.

    Between :meth:`open` and :meth:`close` there is one request at most; it is sent when
    its first byte is taken.
    """

    def __init__(self, transport: Transport, file: Remote, ledger: Ledger) -> None:
        self._transport = transport
        self._length = file.length
        self._ledger = ledger
        self._path = target_path(file.name, file.sha256)
        self._pieces: Iterator[bytes] | None = None
        self._rest = b""
        self._drop_max = 0
        self.at = 0
        self.stop = 0

    def open(self, start: int, stop: int) -> None:
        """From now on the bytes [start, stop) come, if the budget has room for them.

        Raises:
            RefusedError: it has not.
        """
        self.close()
        self._ledger.require(stop - start)
        self.at, self.stop = start, stop

    def take(self, length: int) -> bytes:
        """Exactly the next ``length`` bytes.

        Raises:
            TransportError, NotFoundError, LengthError: as the transport says.
        """
        found = gathered(length, self._some)
        self.at += length
        return found

    def _some(self, most: int) -> bytes:
        piece = self._rest or self._receive()
        self._rest = piece[most:]
        return piece[:most]

    def close(self) -> None:
        """Drop the connection if it is in the middle of something."""
        pieces, self._pieces = self._pieces, None
        self._rest = b""
        if isinstance(pieces, Generator):
            pieces.close()

    def may_drop(self, error: FailedTransferError) -> bool:
        """Whether the server can only begin at zero, and that is paid for.

        Raises:
            RefusedError: there are not enough bytes left for it.
        """
        drop = error.fields.get("drop")
        if not isinstance(drop, int):
            return False
        self._ledger.require(drop + self.stop - self.at)
        self._ledger.spend(drop)
        self._drop_max = drop
        return True

    def _receive(self) -> bytes:
        """The next piece, paid for."""
        if self._pieces is None:
            self._pieces = self._transport.stream(
                self._path,
                start=self.at,
                stop=self.stop,
                length=self._length,
                drop_max=self._drop_max,
            )
            self._drop_max = 0
        piece = next(self._pieces, b"")
        if not piece:
            raise LengthError("fewer bytes came than the signed length")
        self._ledger.spend(len(piece))
        return piece


def gathered(length: int, some: Callable[[int], bytes]) -> bytes:
    """Exactly ``length`` bytes out of pieces, which are in memory only once.

    ``some(most)`` gives the next bytes, at least one and at most so many.
    """
    room, left = BytesIO(bytes(length)), length
    while left:
        left -= room.write(some(left))
    return room.getvalue()


def target_path(name: str, sha256: bytes) -> str:
    """Where the server keeps a file, relative to its base address.

    Raises:
        UnsafeNameError: the name is more than a file name (C-06).
    """
    if not _NAME.fullmatch(name):
        raise UnsafeNameError("a container's name is not a plain file name")
    return f"director/targets/{sha256.hex()}.{quote(name, safe='')}"
